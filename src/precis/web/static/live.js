// A run as it happens: the state when the page opens, then its events from that offset on.
"use strict";
{
  const page = document.getElementById("live"), run = page.dataset.run;
  const find = (id) => document.getElementById(id);
  const make = (tag, props = {}, ...children) => {
    const node = Object.assign(document.createElement(tag), props);
    node.append(...children);
    return node;
  };
  const svg = (tag, attributes, text) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    if (text !== undefined) node.textContent = text;
    return node;
  };
  const ACTIVE = ["queued", "running", "stopping"];
  const curves = new Map();
  let offset = 0, source = null, trials = {}, ended = !ACTIVE.includes(page.dataset.state);

  const number = (v) => v === null || v === undefined ? "–" : Number.isInteger(v) && Math.abs(v) < 1e9 ? v.toLocaleString("en") : Math.abs(v) >= 1e-3 && Math.abs(v) < 1e6 ? Number(v.toPrecision(4)).toString() : v.toExponential(2);
  const lasting = (s) => s < 1 ? "less than a second" : s < 100 ? `${Math.round(s)} s` : s < 5400 ? `${(s / 60).toFixed(1)} min` : `${(s / 3600).toFixed(1)} h`;

  function draw(name) {
    const points = curves.get(name).filter(([, y]) => y !== null);
    const id = `curve-${encodeURIComponent(name)}`, W = 360, H = 170, left = 52, right = 10, top = 26, bottom = 22;
    if (points.length < 2) return;
    const xs = points.map((p) => p[0]), ys = points.map((p) => p[1]);
    let x0 = xs[0], x1 = xs[0], y0 = ys[0], y1 = ys[0];
    for (const [x, y] of points) { x0 = Math.min(x0, x); x1 = Math.max(x1, x); y0 = Math.min(y0, y); y1 = Math.max(y1, y); }
    const log = y0 > 0 && y1 > 300 * y0, f = log ? Math.log : (v) => v;
    const px = (x) => left + (W - left - right) * (x - x0) / (x1 - x0 || 1);
    const py = (y) => H - bottom - (H - top - bottom) * (f(y) - f(y0)) / (f(y1) - f(y0) || 1);
    const chart = svg("svg", { viewBox: `0 0 ${W} ${H}`, class: "curve", role: "img", "aria-label": `${name}: from ${number(ys[0])} to ${number(ys[ys.length - 1])} at step ${number(x1)}` });
    chart.append(svg("text", { x: left, y: 15, class: "title" }, name + (log ? " (logarithmic)" : "")));
    chart.append(svg("text", { x: W - right, y: 15, "text-anchor": "end" }, number(ys[ys.length - 1])));
    for (const y of [y0, y1]) {
      chart.append(svg("line", { x1: left, x2: W - right, y1: py(y), y2: py(y), class: "axis" }));
      chart.append(svg("text", { x: left - 6, y: py(y) + 4, "text-anchor": "end" }, number(Number(y.toPrecision(3)))));
    }
    chart.append(svg("text", { x: left, y: H - 6 }, number(x0)), svg("text", { x: W - right, y: H - 6, "text-anchor": "end" }, `step ${number(x1)}`));
    chart.append(svg("polyline", { class: "line", points: points.map(([x, y]) => `${px(x).toFixed(1)},${py(y).toFixed(1)}`).join(" ") }));
    const old = find(id), box = make("figure", { id }, chart);
    if (old) old.replaceWith(box); else find("curves").append(box);
    find("curves-part").hidden = false;
  }

  function picture(image) {
    const gallery = find("pictures");
    if (!gallery) return;
    const address = `${run}/files/${image.file.split("/").map(encodeURIComponent).join("/")}`;
    let box = [...gallery.children].find((node) => node.dataset.file === image.file);
    if (!box) {
      const img = make("img", { alt: image.name });
      img.addEventListener("load", () => img.classList.toggle("fine", img.naturalWidth < 200));
      box = make("figure", { className: gallery.children.length ? "" : "first" }, make("a", { href: address }, img), make("figcaption"));
      box.dataset.file = image.file;
      gallery.append(box);
    }
    box.querySelector("img").src = `${address}?v=${image.at}`;
    box.querySelector("figcaption").textContent = image.name + (image.step === null ? "" : `, step ${number(image.step)}`);
  }

  function dots() {
    const part = find("trials"), names = Object.keys(trials);
    if (!names.length) return;
    part.replaceChildren(make("h2", { textContent: "Trials" }));
    for (const claim of names) {
      const grid = make("div", { className: "dots" });
      for (const [arm, seeds] of Object.entries(trials[claim])) {
        const row = make("span");
        for (const [seed, state] of Object.entries(seeds)) {
          const dot = make("i", { className: state, title: `seed ${seed}: ${{ start: "running", done: "done", kept: "was in the ledger", failed: "failed" }[state] || state}` });
          row.append(dot);
        }
        const count = Object.values(seeds).filter((s) => s === "done" || s === "kept").length;
        row.append(make("span", { className: "soft small", textContent: `${count} done` }));
        grid.append(make("span", { textContent: arm }), row);
      }
      part.append(make("p", { className: "id", textContent: claim }), grid);
    }
  }

  function take(message) {
    if (message.reset) { curves.clear(); trials = {}; if (find("notes")) find("notes").replaceChildren(); }
    offset = message.offset;
    for (const [name, points] of Object.entries(message.curves)) {
      const known = curves.get(name) || [];
      for (const point of points) if (!known.length || point[0] >= known[known.length - 1][0]) known.push(point);
      if (known.length > 1600) known.splice(0, known.length, ...known.filter((_, i) => i % 2 === 0 || i === known.length - 1));
      curves.set(name, known);
      draw(name);
    }
    message.images.forEach(picture);
    for (const note of message.notes) {
      if (![...find("notes").children].some((node) => node.textContent === note)) find("notes").append(make("li", { textContent: note }));
      find("notes-part").hidden = false;
    }
    for (const [claim, arms] of Object.entries(message.trials)) {
      for (const [arm, seeds] of Object.entries(arms)) {
        trials[claim] = trials[claim] || {};
        trials[claim][arm] = { ...trials[claim][arm], ...seeds };
      }
    }
    if (Object.keys(message.trials).length) dots();
    const bar = find("bar");
    if (bar && message.total) {
      bar.value = message.step / message.total;
      const left = message.left === null ? "" : `, ${lasting(message.left)} left`;
      find("pace").textContent = `${number(message.step)} of ${number(message.total)}${page.dataset.kind === "check" ? " trials" : ""}, ${lasting(message.seconds)} so far${left}${message.now ? ` · ${message.now}` : ""}`;
      document.title = `${Math.floor(100 * message.step / message.total)} % ${document.title.replace(/^\d+ % /, "")}`;
    }
    if (!ended) {
      find("scalars").replaceChildren(...Object.entries(message.scalars).map(([name, value]) =>
        make("div", {}, make("dt", { textContent: name.replaceAll("_", " ") }), make("dd", { textContent: number(value) }))));
    }
  }

  async function renew() {
    // The page as it is now, without losing where the reader is.
    const answer = await fetch(location.href, { headers: { accept: "text/html" } });
    if (!answer.ok) return;
    const now = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("live");
    page.dataset.state = now.dataset.state;
    page.replaceChildren(...now.childNodes);
    ended = !ACTIVE.includes(page.dataset.state);
    if (!ended) return begin();
    document.title = document.title.replace(/^\d+ % /, "");
    for (const name of curves.keys()) draw(name);
    dots();
    if (page.querySelector(".viewer") && !document.querySelector("script[src$='view.js']")) document.head.append(make("script", { src: "/static/view.js" }));
  }

  function follow() {
    if (source || ended) return;
    source = new EventSource(`${run}/events?from=${offset}`);
    source.onmessage = (event) => take(JSON.parse(event.data));
    source.addEventListener("state", (event) => { if (JSON.parse(event.data) !== page.dataset.state) { pause(); renew(); } });
    source.addEventListener("end", () => { pause(); renew(); });
  }

  function pause() {
    if (source) source.close();
    source = null;
  }

  async function begin() {
    const answer = await fetch(`${run}/state`, { headers: { accept: "application/json" } }).catch(() => null);
    if (answer && answer.ok) take({ reset: page.dataset.state !== "finished", ...await answer.json() });
    else if (!ended) return setTimeout(begin, 2000);
    follow();
  }

  // A page that nobody sees gives its connection back, and takes up where it was.
  document.addEventListener("visibilitychange", () => document.hidden ? pause() : follow());
  begin();
}
