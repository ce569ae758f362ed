from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import hankel2
from tests.papers.siren.job_runs import run, saved, smooth

from precis.data.animation import read_frames, write_animation
from precis.data.audio import read_wav, write_wav
from precis.data.embedded import digits
from precis.data.images import as_float, read_image
from precis.data.points import write_ply
from precis.data.shapes import chord, moving_shapes, sphere, torus
from precis.fields.poisson import image_gradient, solve_gradient
from precis.papers.catalogue import find
from precis.papers.opening import make_job
from precis.papers.siren.differences import helmholtz_by_differences, wave_by_differences
from precis.papers.siren.normals import estimate_normals
from precis.papers.siren.tasks_prior import knn_complete
from precis.train.checkpoint import load_model


def test_a_picture_comes_back_from_its_gradient(tmp_path):
    done = run(tmp_path / "out", saved(tmp_path, smooth(16, 20)), task="poisson", steps=200, lr=1e-3, omega=10.0)
    assert done.metrics["psnr"] > 25 and done.metrics["psnr_exact"] > 50
    assert {"reconstruction.png", "exact.png", "overview.png"} <= set(done.result["files"])
    whole = {"x0": 0.0, "y0": 0.0, "x1": 1.0, "y1": 1.0}
    view = make_job(find()["siren"]).view(done.folder, "zoom", whole, (20, 16))
    made = read_image(done.folder / "reconstruction.png").pixels / 255
    assert np.abs(view - made).max() < 0.51 / 255  # what was left open is in the saved weights


def test_a_picture_comes_back_from_its_laplacian(tmp_path):
    picture = saved(tmp_path, smooth(12, 12, 1))
    done = run(tmp_path / "out", picture, from_="laplacian", steps=200, lr=1e-3, omega=10.0)
    assert done.result["task"] == "poisson" and done.metrics["psnr"] > 15
    assert any("harmonic" in note for note in done.result["notes"])


def test_a_blend_is_the_composite_of_the_cosine_transform(tmp_path):
    one, two = saved(tmp_path, smooth(16, 16), "a.png"), saved(tmp_path, smooth(16, 16)[:, ::-1].copy(), "b.png")
    done = run(tmp_path / "out", one, blend=two, alpha=0.3, steps=200, lr=1e-3, omega=10.0)
    assert done.result["task"] == "blend" and done.metrics["psnr"] > 25
    a, b = (torch.from_numpy(as_float(read_image(p).pixels)) for p in (one, two))
    exact = solve_gradient(0.3 * image_gradient(a) + 0.7 * image_gradient(b))
    exact += (0.3 * a + 0.7 * b).mean((-2, -1), keepdim=True)
    made = as_float(read_image(done.folder / "blend.png").pixels)
    assert -10 * np.log10(((made - exact.numpy()) ** 2).mean()) == pytest.approx(done.metrics["psnr"], abs=0.3)


def test_a_mask_keeps_the_first_picture_outside(tmp_path):
    one, two = saved(tmp_path, smooth(16, 16, 1), "a.png"), saved(tmp_path, smooth(16, 16, 3)[:, ::-1].copy(), "b.png")
    mask = saved(tmp_path, np.zeros((1, 16, 16), np.uint8), "m.png")
    done = run(tmp_path / "out", one, blend=two, mask=mask, rule="max", steps=200, lr=1e-3, omega=10.0)
    made, first = (as_float(read_image(p).pixels) for p in (done.folder / "exact.png", one))
    assert made.shape[0] == 3 and np.abs(made - first).max() < 0.02


def test_a_second_picture_of_another_size_is_brought_to_the_first(tmp_path):
    one, two = saved(tmp_path, smooth(16, 16), "a.png"), saved(tmp_path, smooth(20, 24), "b.png")
    done = run(tmp_path / "out", one, blend=two, resize=True, steps=2)
    assert read_image(done.folder / "blend.png").pixels.shape == (3, 16, 16)


def test_the_mesh_of_a_ball_has_its_place_size_and_outside(tmp_path):
    ball = sphere(3000, 0, radius=1.0)
    given = write_ply(tmp_path / "ball.ply", 5 * ball.points + (10, 20, 30), normals=ball.normals)
    done = run(tmp_path / "out", given, steps=250, batch=300, lr=4e-4, mesh_resolution=32, omega=3.0)
    assert done.result["task"] == "sdf"
    assert done.metrics["mean_distance"] < 0.2 and done.metrics["normal_error_degrees"] < 5
    vertices, faces = read_mesh(done.folder / "mesh.ply")
    radius = np.linalg.norm(vertices - (10, 20, 30), axis=1)
    near = np.abs(radius - 5) < 0.5
    assert near.mean() > 0.95 and radius[near].mean() == pytest.approx(5, abs=0.15)
    a, b, c = (vertices[faces[:, i]] - (10, 20, 30) for i in range(3))
    assert (np.einsum("ij,ij->i", np.cross(b - a, c - a), a) > 0).mean() > 0.95  # counter-clockwise from outside
    picture = make_job(find()["siren"]).view(done.folder, "orbit", {"azimuth": 10.0, "elevation": 0.0}, (24, 16))
    assert picture.shape == (3, 16, 24) and picture[:, 8, 12].sum() < 2.9 and (picture[:, 0, 0] == 1).all()


def read_mesh(path: Path) -> tuple[np.ndarray, np.ndarray]:
    head, body = path.read_bytes().split(b"end_header\n", 1)
    v, f = (int(head.split(f"element {name} ".encode())[1].split()[0]) for name in ("vertex", "face"))
    vertices = np.frombuffer(body, [("p", "<f4", 3), ("n", "<f4", 3)], v)
    faces = np.frombuffer(body[vertices.nbytes :], [("k", "u1"), ("i", "<i4", 3)], f)
    return vertices["p"].astype(float), faces["i"]


def test_estimated_normals_are_those_of_the_surface():
    cloud = torus(2000, 3)
    cosine = (estimate_normals(cloud.points) * cloud.normals).sum(1)
    assert cosine.min() > 0 and np.median(cosine) > 0.99
    two = np.concatenate([sphere(500, 0).points + (-2, 0, 0), sphere(500, 1).points + (2, 0, 0)])
    outward = two - np.repeat([[-2.0, 0, 0], [2.0, 0, 0]], 500, axis=0)
    assert ((estimate_normals(two) * outward).sum(1) > 0).all()


def test_points_without_normals_get_them(tmp_path):
    given = tmp_path / "cloud.npy"
    np.save(given, sphere(300, 0).points)
    done = run(tmp_path / "out", given, estimate_normals=True, steps=100, batch=200, mesh_resolution=16, lr=4e-4)
    assert done.metrics["normal_error_degrees"] < 20


def test_a_sound_is_fitted_and_written_at_two_rates(tmp_path):
    sound = chord(0.25, 4000)
    given = write_wav(tmp_path / "s.wav", np.concatenate([sound.samples, 0.3 * sound.samples]), sound.rate)
    done = run(tmp_path / "out", given, rate=2000, steps=150, lr=1e-3, omega=500.0)
    assert done.result["task"] == "audio" and done.metrics["snr"] > 15
    same, other = (read_wav(done.folder / name) for name in ("reconstruction.wav", "reconstruction_2000hz.wav"))
    assert same.samples.shape == (2, 1000) and same.rate == 4000
    assert other.samples.shape == (2, 500) and other.rate == 2000
    assert np.abs(same.samples - read_wav(given).samples).std() < 0.1
    assert np.abs(other.samples - same.samples.reshape(2, 500, 2).mean(2)).mean() < 0.05


def test_long_sounds_are_told_and_silence_is_fitted(tmp_path):
    given = write_wav(tmp_path / "s.wav", np.zeros(6200), 100)
    done = run(tmp_path / "out", given, steps=3)
    assert any("62 s of sound" in note and "--width" in note for note in done.result["notes"])


def test_a_clip_is_fitted_and_written_at_another_rate(tmp_path):
    given = write_animation(tmp_path / "clip.gif", moving_shapes(6, 16), fps=10)
    done = run(tmp_path / "out", given, fps=20.0, steps=200, lr=2e-3)
    assert done.result["task"] == "video" and done.metrics["psnr"] > 22
    frames = read_frames(done.folder / "frames")
    assert frames.pixels.shape == (12, 3, 16, 16) and len(read_frames(done.folder / "reconstruction.webp").pixels) == 12


def test_finite_differences_solve_the_helmholtz_equation():
    n = 160
    x = (np.arange(n) + 0.5) * 2 / n - 1
    r = np.hypot(x[:, None] - 0.1, x[None, :])
    free = (r > 0.06) & (np.maximum(np.abs(x)[:, None], np.abs(x)) < 0.5)
    made = helmholtz_by_differences(np.ones((n, n)), 12.0, (0.1, 0.0))
    exact = (1 + 1j) * 0.25j * hankel2(0, 12 * r)
    assert np.linalg.norm((made - exact)[free]) / np.linalg.norm(exact[free]) < 0.03


def test_finite_differences_solve_the_wave_equation():
    """Against the exact solution on a torus so large that nothing comes round."""
    n, c, t = 96, 1.5, 0.3
    line = (np.arange(2 * n) + 0.5) * 2 / n - 2
    pulse = np.exp(-(line[:, None] ** 2 + line**2) / 0.03)
    k = 2 * np.pi * np.fft.fftfreq(2 * n, 2 / n)
    exact = np.fft.ifft2(np.fft.fft2(pulse) * np.cos(c * t * np.hypot(k[:, None], k))).real
    inner = slice(n // 2, n // 2 + n)
    made = wave_by_differences(pulse[inner, inner], np.full((n, n), c), t, 4)
    assert made.shape == (4, n, n) and np.abs(made[-1] - exact[inner, inner]).max() < 2e-3


def test_equations_are_solved_step_by_step(tmp_path):
    speed = saved(tmp_path, np.full((1, 8, 8), 255, np.uint8), "speed.png")
    line = np.rint(255 * np.exp(-(np.linspace(-2, 2, 8) ** 2))).astype(np.uint8)
    pulse = saved(tmp_path, line[None, None].repeat(8, 1))
    options = {"steps": 300, "batch": 256, "lr": 1e-3, "width": 32, "size": "24"}
    wave = run(tmp_path / "wave", speed, task="wave", initial=pulse, until=0.05, speeds="0.5,1", omega=5.0, **options)
    assert wave.metrics["relative_error"] < 0.6
    assert len(read_frames(wave.folder / "wave.webp").pixels) == 25
    options["steps"] = 5
    field = run(tmp_path / "field", task="helmholtz", velocity=speed, source="0.1,-0.2", **options)
    arrays = np.load(field.folder / "field.npz")
    assert arrays["field"].shape == (24, 24) and arrays["field"].dtype == np.complex64
    assert (arrays["squared_slowness"] == 1).all() and tuple(arrays["centre"]) == (-0.2, 0.1)
    assert not any("no INPUT" in note for note in field.result["notes"])


def test_a_prior_completes_draws_and_goes_between(tmp_path):
    images = np.minimum(digits(8).images[:400].astype(int) * 16, 255).astype(np.uint8)
    np.savez(tmp_path / "set.npz", images=images)
    mask = saved(tmp_path, np.repeat([[255] * 8, [0] * 8], 4, axis=0).astype(np.uint8)[None], "mask.png")
    one = saved(tmp_path, images[7], "one.png")
    done = run(
        tmp_path / "out", tmp_path / "set.npz", task="prior", size="8", width=16, steps=150, batch=64, lr=2e-3,
        complete=one, context=str(mask), interpolate=f"{one},{one}", samples=4, render=2, omega=10.0,
    )
    files = {"completions.png", "completed.png", "samples.png", "samples_2x.png", "interpolation.png", "context.png"}
    assert files <= set(done.result["files"]) and done.result["files"][0] == "completions.png"
    assert read_image(done.folder / "completed.png").pixels.shape == (1, 8, 8)
    assert done.metrics["mse_64"] < images.std() ** 2 / 255**2  # better than one grey for all
    prior = load_model(done.folder)
    draw = prior.sample(3, torch.Generator().manual_seed(0))(torch.zeros(5, 2))
    assert draw.shape == (3, 5, 1) and draw.isfinite().all() and draw.std(0).min() > 0


def test_nearest_neighbours_average_what_agrees_at_the_shown_pixels():
    train = torch.tensor([[[0.0, 0, 1]], [[0, 0, 3]], [[9, 9, 9]]])
    made = knn_complete(train, torch.tensor([[[0.1, 0.0]]]), torch.tensor([[0, 1]]), k=2)
    assert made.tolist() == [[[0.0, 0.0, 2.0]]]
