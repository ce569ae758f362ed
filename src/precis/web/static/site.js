// Small comforts of every page: search as one types, forms that say they are sending, parts that come later.
"use strict";
const one = (query, at = document) => at.querySelector(query);
const all = (query, at = document) => [...at.querySelectorAll(query)];
const LIMIT = 512 * 2 ** 20;

function liveSearch() {
  const box = one("#q"), cards = all(".card");
  if (!box || !cards.length || box.value) return;
  box.addEventListener("input", () => {
    const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const card of cards) {
      const fits = words.every((word) => card.dataset.words.includes(word));
      card.hidden = !fits;
      shown += fits;
    }
    one("#none").hidden = shown > 0;
    one("#found").textContent = `${shown} of ${cards.length} papers`;
  });
}

function forms(at) {
  for (const form of all("form[data-upload]", at)) {
    const note = one("[data-sending]", form);
    form.addEventListener("submit", (event) => {
      const size = all("input[type=file]", form).flatMap((box) => [...box.files]).reduce((sum, file) => sum + file.size, 0);
      note.hidden = false;
      if (size > LIMIT) {
        event.preventDefault();
        note.textContent = "that is too large: at most 512 MB";
        return;
      }
      note.textContent = size ? "sending …" : "starting …";
      one("button", form).disabled = true;
    });
    const box = one("input[name=input][type=file]", form), choose = one("input[value=upload]", form);
    if (box && choose) {
      box.addEventListener("change", () => { if (box.files.length) choose.checked = true; });
      const drop = box.closest(".drop");
      for (const [name, on] of [["dragover", true], ["dragleave", false], ["drop", false]]) {
        drop.addEventListener(name, () => drop.classList.toggle("over", on));
      }
    }
    const name = one("#input-name", form);
    if (name) name.addEventListener("input", () => { one("input[value=name]", form).checked = true; });
  }
}

async function late() {
  for (const part of all("[data-fill]")) {
    const answer = await fetch(part.dataset.fill, { headers: { accept: "text/html" } }).catch(() => null);
    if (answer && answer.ok && !part.contains(document.activeElement)) {
      part.replaceChildren(...new DOMParser().parseFromString(await answer.text(), "text/html").body.childNodes);
      forms(part);
    }
  }
}

addEventListener("pageshow", () => all("form[data-upload] button").forEach((button) => { button.disabled = false; }));
liveSearch();
forms(document);
late();
const wrong = one("#wrong");
if (wrong) wrong.focus();
