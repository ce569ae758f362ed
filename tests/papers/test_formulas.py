import pytest

from precis.papers.formulas import to_unicode


@pytest.mark.parametrize(
    ("tex", "text"),
    [
        (r"x_i^2", "xᵢ²"),
        (r"\frac{a+b}{c_{ij}}", "(a+b)/cᵢⱼ"),
        (r"\frac12", "1/2"),
        (r"\frac{\exp(s_{ij}/\tau)}{\sum_k \exp(s_{ik}/\tau)}", "exp(sᵢⱼ/τ)/(∑ₖ exp(sᵢₖ/τ))"),
        (r"\hat\Phi(x)=\sin(\omega_0 (W_i x + b_i))", "Φ̂(x)=sin(ω₀ (Wᵢ x + bᵢ))"),
        (r"\sum_{k=1}^{K} \Delta_k", "∑ₖ₌₁ᴷ Δₖ"),
        (r"\log p(x)", "log p(x)"),
        (r"\operatorname{softmax}(QK^\top/\sqrt{d_k})V", "softmax(QKᵀ/√dₖ)V"),
        (r"\|\nabla f\|_2 \in \mathbb{R}^{d}", "‖∇f‖₂ ∈ ℝᵈ"),
        (r"\mathrm{KL}(q\|p)", "KL(q‖p)"),
        (r"e^{-\beta t}, 10^{-3}", "e^(-βt), 10⁻³"),
        (r"\mathcal{L}_{\text{NT-Xent}}", "ℒ_(NT-Xent)"),
        (r"\arg\min_\theta f'", "arg min_θ f′"),
        (r"\begin{aligned} a &= b \\ c &= d\end{aligned}", "a = b\nc = d"),
        (r"\left(\tfrac{1}{n}\right) \le 48{\times}48", "(1/n) ≤ 48×48"),
        (r"k \times k, a\cdot b", "k × k, a·b"),
        (r"\{x\}_{i=1}^n", "{x}ᵢ₌₁ⁿ"),
        (r"\overline{x}, 50\,\overline{\bigl|\|\nabla f\|-1\bigr|}", "x\u0305, 50 ⟨|‖∇f‖-1|⟩"),
    ],
)
def test_formulas(tex, text):
    assert to_unicode(tex) == text


def test_what_is_unknown_or_broken_stays_visible():
    assert "unheard" in to_unicode(r"\unheard x")
    assert "x" in to_unicode(r"\frac{x}{")
