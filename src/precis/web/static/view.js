// Viewers of a finished run: coarse while the hand moves, sharp when it rests; drawn where the run is.
"use strict";
for (const part of document.querySelectorAll(".viewer")) {
  const stage = part.querySelector(".stage"), img = stage.querySelector("img"), where = part.querySelector(".where");
  const kind = part.dataset.view, run = document.getElementById("live").dataset.run;
  const start = kind === "zoom" ? { x0: 0, y0: 0, x1: 1, y1: 1 } : { azimuth: 30, elevation: 20, distance: 3 };
  let at = { ...start }, shape = 1, wanted = null, busy = false, rest = 0, address = null;
  const COARSE = 96, PATIENCE = 4000; // pixels; ms that a sharp picture may take
  let pace = 0; // ms a pixel of the last picture, waiting included

  const sized = (most) => shape >= 1 ? [most, Math.max(8, Math.round(most / shape))] : [Math.max(8, Math.round(most * shape)), most];

  async function draw(most, probe) {
    const [width, height] = sized(most);
    const query = new URLSearchParams({ ...at, width, height, ...probe });
    const began = performance.now();
    const answer = await fetch(`${run}/view/${kind}?${query}`, { headers: { accept: "application/json" } });
    pace = (performance.now() - began) / (width * height);
    if (answer.status === 204) throw new Error("this run has no such view");
    if (!answer.ok) throw new Error((await answer.json()).error);
    const made = URL.createObjectURL(await answer.blob());
    await new Promise((done) => { img.onload = img.onerror = done; img.src = made; });
    if (address) URL.revokeObjectURL(address);
    address = made;
    img.alt = kind === "zoom" ? `the window ${["x0", "y0", "x1", "y1"].map((n) => at[n].toFixed(3)).join(", ")}` : `from azimuth ${at.azimuth.toFixed(0)}°, elevation ${at.elevation.toFixed(0)}°`;
  }

  // As sharp as the stage shows, if the machine can draw that in time.
  function sharp() {
    const seen = Math.min(768, Math.round(stage.clientWidth * Math.min(devicePixelRatio, 2)));
    return Math.max(COARSE, Math.min(seen, Math.floor(Math.sqrt(PATIENCE / Math.max(pace, 1e-6)))));
  }

  async function pump() {
    if (busy) return;
    busy = true;
    stage.classList.add("busy");
    while (wanted !== null) {
      const still = wanted === "sharp", most = still ? sharp() : COARSE;
      wanted = null;
      try {
        await draw(most);
        where.textContent = words();
        if (still && !wanted && sharp() > 1.4 * most) wanted = "sharp"; // it went faster than thought
      } catch (error) { where.textContent = error.message; }
    }
    stage.classList.remove("busy");
    busy = false;
  }

  const words = () => kind === "zoom" ? `${(1 / (at.x1 - at.x0)).toPrecision(3)}×` : `azimuth ${at.azimuth.toFixed(0)}°, elevation ${at.elevation.toFixed(0)}°, distance ${at.distance.toFixed(2)}`;

  function moved() {
    wanted = "coarse";
    clearTimeout(rest);
    rest = setTimeout(() => { wanted = "sharp"; pump(); }, 220);
    pump();
  }

  function shift(dx, dy) {
    if (kind === "orbit") {
      at.azimuth = (((at.azimuth - dx * 180) % 360) + 360) % 360;
      at.elevation = Math.max(-89, Math.min(89, at.elevation + dy * 180));
    } else {
      const w = at.x1 - at.x0, h = at.y1 - at.y0;
      const x = Math.max(-w / 2, Math.min(1 - w / 2, at.x0 - dx * w)), y = Math.max(-h / 2, Math.min(1 - h / 2, at.y0 - dy * h));
      at = { x0: x, y0: y, x1: x + w, y1: y + h };
    }
    moved();
  }

  function nearer(factor, fx = 0.5, fy = 0.5) {
    if (kind === "orbit") at.distance = Math.max(1.05, Math.min(20, at.distance * factor));
    else {
      const w = at.x1 - at.x0, f = Math.max(1e-3, Math.min(1.5, w * factor)) / w, h = at.y1 - at.y0;
      const x = at.x0 + fx * w, y = at.y0 + fy * h;
      at = { x0: x - fx * w * f, y0: y - fy * h * f, x1: x + (1 - fx) * w * f, y1: y + (1 - fy) * h * f };
    }
    moved();
  }

  let from = null;
  stage.addEventListener("pointerdown", (event) => { from = [event.clientX, event.clientY]; stage.setPointerCapture(event.pointerId); });
  stage.addEventListener("pointermove", (event) => {
    if (!from) return;
    shift((event.clientX - from[0]) / stage.clientWidth, (event.clientY - from[1]) / stage.clientHeight);
    from = [event.clientX, event.clientY];
  });
  for (const name of ["pointerup", "pointercancel"]) stage.addEventListener(name, () => { from = null; });
  stage.addEventListener("wheel", (event) => {
    event.preventDefault();
    const box = stage.getBoundingClientRect();
    nearer(Math.exp(Math.sign(event.deltaY) * 0.18), (event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
  }, { passive: false });
  stage.addEventListener("keydown", (event) => {
    const keys = {
      ArrowLeft: () => shift(0.1, 0), ArrowRight: () => shift(-0.1, 0), ArrowUp: () => shift(0, 0.1), ArrowDown: () => shift(0, -0.1),
      "+": () => nearer(0.8), "=": () => nearer(0.8), "-": () => nearer(1.25), 0: () => { at = { ...start }; moved(); },
    };
    if (keys[event.key] && !event.ctrlKey && !event.metaKey) { event.preventDefault(); keys[event.key](); }
  });

  (async () => {
    // Only a view that this run has is shown; its pictures tell the shape of the stage.
    try {
      const first = document.querySelector(".gallery img");
      if (kind === "zoom" && first) {
        if (!first.complete) await new Promise((done) => { first.onload = first.onerror = done; first.loading = "eager"; });
        if (first.naturalWidth) shape = first.naturalWidth / first.naturalHeight;
      }
      img.style.setProperty("--shape", shape);
      await draw(64, { probe: 1 });
      part.hidden = false;
      moved();
    } catch { part.remove(); }
  })();
}
