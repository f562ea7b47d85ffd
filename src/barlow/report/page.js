"use strict";
// The page is whole without this: it adds what a pointer or the keyboard asks for. Texts of the run are put in as text
// alone, and styles one by one, which the page's policy allows.
const tip = document.getElementById("tip");
const make = (tag, text, name) => {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (name) made.className = name;
  return made;
};
const read = (home) => JSON.parse(home.querySelector('script[type="application/json"]').textContent);
const short = (v) => (Math.abs(v) >= 1000 ? Math.round(v).toLocaleString("en") : String(+v.toPrecision(3)));

function say(x, y, ...parts) {
  tip.replaceChildren(...parts);
  tip.hidden = false;
  const right = window.scrollX + document.documentElement.clientWidth - tip.offsetWidth - 8;
  const below = y + 14 + tip.offsetHeight < window.scrollY + window.innerHeight;
  tip.style.left = `${Math.max(window.scrollX + 8, Math.min(x + 14, right))}px`;
  tip.style.top = `${below ? y + 14 : Math.max(window.scrollY, y - 10 - tip.offsetHeight)}px`;
}
const hush = () => { tip.hidden = true; };
window.addEventListener("keydown", (event) => { if (event.key === "Escape") hush(); });

// On paper everything is open.
window.addEventListener("beforeprint", () => {
  for (const closed of document.querySelectorAll("details:not([open])")) closed.open = true;
});

// What is wider than the page says so, and no longer where it fits.
const wider = () => {
  for (const home of document.querySelectorAll(".scroll")) home.classList.toggle("wider", home.scrollWidth > home.clientWidth + 1);
};
window.addEventListener("resize", wider);
for (const each of document.querySelectorAll("details")) each.addEventListener("toggle", wider);
wider();

// Curves: a cursor at the step that is pointed at, and what each curve is there.
for (const figure of document.querySelectorAll(".chart")) {
  const { x, y, name, lines } = read(figure), svg = figure.querySelector("svg");
  const steps = [...new Set(lines.flatMap((line) => line.points.map((p) => p[0])))].sort((a, b) => a - b);
  const cursor = document.createElementNS(svg.namespaceURI, "line");
  cursor.setAttribute("class", "cursor");
  const place = ([low, high, start, end, log], v) => {
    const [a, b, c] = log ? [low, high, v].map(Math.log) : [low, high, v];
    return start + ((c - a) / (b - a || 1)) * (end - start);
  };
  let at = steps.length - 1;
  const show = (left, top) => {
    const box = svg.getBoundingClientRect(), scale = box.width / svg.viewBox.baseVal.width, px = place(x, steps[at]);
    for (const [key, v] of [["x1", px], ["x2", px], ["y1", y[2]], ["y2", y[3]]]) cursor.setAttribute(key, v);
    svg.append(cursor);
    const rows = lines.map((line) => {
      const near = line.points.reduce((a, b) => (Math.abs(b[0] - steps[at]) < Math.abs(a[0] - steps[at]) ? b : a));
      return make("div", `${lines.length > 1 ? `${line.name}: ` : ""}${short(near[1])}`);
    });
    const here = [left ?? box.left + px * scale + window.scrollX, top ?? box.top + window.scrollY + box.height / 2];
    say(...here, make("b", `${name} ${short(steps[at])}`), ...rows);
  };
  const leave = () => { cursor.remove(); hush(); };
  const point = (event) => {
    const box = svg.getBoundingClientRect(), px = ((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width;
    const distance = (i) => Math.abs(place(x, steps[i]) - px);
    at = steps.reduce((best, _, i) => (distance(i) < distance(best) ? i : best), 0);
    show(event.pageX, event.pageY);
  };
  svg.addEventListener("pointermove", point);
  svg.addEventListener("pointerdown", point);
  svg.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && leave());
  figure.addEventListener("blur", leave);
  figure.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!by) return;
    event.preventDefault();
    at = Math.max(0, Math.min(steps.length - 1, at + by));
    show();
  });
}

// The map: points that can be pointed at, zoomed, and walked by the arrow keys; near by, the images themselves.
for (const home of document.querySelectorAll(".map")) {
  const { names, labels, classes, places, near, side, columns } = read(home);
  const canvas = home.querySelector("canvas"), pen = canvas.getContext("2d"), panel = home.querySelector(".near");
  const count = names.length, view = { k: 1, x: 0, y: 0 }, down = new Map();
  const chosen = new Set();
  let kind = home.querySelector('button[data-place][aria-pressed="true"]')?.dataset.place ?? "pca", at = -1, drawn = 0, moved = 0, colours = [];
  const address = getComputedStyle(home.querySelector(".m") ?? home).backgroundImage;
  const atlas = address.startsWith('url("data:') ? Object.assign(new Image(), { src: address.slice(5, -2) }) : null;
  const wide = () => canvas.clientWidth, high = () => canvas.clientHeight;
  const xy = (i) => {
    const s = Math.min(wide(), high()) - 24, [px, py] = [places[kind][2 * i] / 1000, places[kind][2 * i + 1] / 1000];
    return [((wide() - s) / 2 + px * s) * view.k + view.x, ((high() - s) / 2 + py * s) * view.k + view.y];
  };
  const thumb = (i) => {
    const made = make("span", undefined, "m");
    made.style.backgroundPosition = `${-(i % columns) * side}px ${-Math.floor(i / columns) * side}px`;
    return made;
  };
  const words = (i) => (labels ? `${names[i]} (${classes[labels[i]]})` : names[i]);
  const said = (i) => [...(atlas ? [thumb(i)] : []), make("span", words(i))];

  function draw() {
    drawn = 0;
    const ratio = window.devicePixelRatio || 1;
    if (canvas.width !== Math.round(wide() * ratio)) canvas.width = Math.round(wide() * ratio);
    if (canvas.height !== Math.round(high() * ratio)) canvas.height = Math.round(high() * ratio);
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, wide(), high());
    const seen = [];
    for (let i = 0; i < count; i++) {
      const [px, py] = xy(i);
      if (px > -side && py > -side && px < wide() + side && py < high() + side) seen.push([i, px, py]);
    }
    const pictures = atlas?.complete && seen.length <= (wide() * high()) / (side * side * 1.2);
    for (const [i, px, py] of seen) {
      pen.globalAlpha = chosen.size && labels && !chosen.has(labels[i]) ? 0.12 : pictures ? 1 : 0.8;
      pen.fillStyle = colours[labels ? labels[i] % colours.length : 0];
      if (pictures) {
        pen.fillRect(px - side / 2 - 2, py - side / 2 - 2, side + 4, side + 4);
        const [sx, sy] = [(i % columns) * side, Math.floor(i / columns) * side];
        pen.drawImage(atlas, sx, sy, side, side, px - side / 2, py - side / 2, side, side);
      } else {
        pen.beginPath();
        pen.arc(px, py, Math.min(4, 2.2 + view.k * 0.3), 0, 7);
        pen.fill();
      }
    }
    pen.globalAlpha = 1;
    if (at >= 0) {
      const [px, py] = xy(at);
      pen.strokeStyle = getComputedStyle(canvas).color;
      pen.lineWidth = 2;
      pen.beginPath();
      pen.arc(px, py, pictures ? side * 0.8 : 8, 0, 7);
      pen.stroke();
    }
  }
  const soon = () => { drawn ||= requestAnimationFrame(draw); };
  function theme() {
    const root = getComputedStyle(document.documentElement);
    colours = [...Array(10).keys()].map((i) => root.getPropertyValue(`--c${i}`).trim());
    soon();
  }
  const closest = (px, py, reach) => {
    let best = -1, least = reach * reach;
    for (let i = 0; i < count; i++) {
      const [x, y] = xy(i), d = (x - px) ** 2 + (y - py) ** 2;
      if (d < least) [best, least] = [i, d];
    }
    return best;
  };
  function choose(i) {
    at = i;
    soon();
    if (i < 0) return panel.replaceChildren();
    const list = make("ol");
    for (const j of near[i]) list.append(Object.assign(make("li"), {}));
    near[i].forEach((j, n) => list.children[n].append(...said(j)));
    const own = make("p", undefined, "own");
    own.append(...said(i));
    panel.replaceChildren(own, make("p", "Nearest to it, by the encoder:", "how"), list);
  }
  function zoom(by, px = wide() / 2, py = high() / 2) {
    const k = Math.max(1, Math.min(60, view.k * by)), f = k / view.k;
    Object.assign(view, { k, x: px - (px - view.x) * f, y: py - (py - view.y) * f });
    if (k === 1) Object.assign(view, { x: 0, y: 0 });
    canvas.style.touchAction = k > 1 ? "none" : "pan-y"; // zoomed in, a finger moves the map and not the page
    hush();
    soon();
  }
  const on = (name, act, options) => canvas.addEventListener(name, act, options);
  on("pointerdown", (event) => {
    down.set(event.pointerId, event);
    moved = 0;
    if (event.pointerType === "mouse") canvas.setPointerCapture(event.pointerId);
  });
  on("pointermove", (event) => {
    const before = down.get(event.pointerId);
    if (!before) {
      const i = closest(event.offsetX, event.offsetY, 14);
      return i < 0 ? hush() : say(event.pageX, event.pageY, ...said(i));
    }
    const others = [...down.values()].filter((p) => p.pointerId !== event.pointerId);
    moved += Math.abs(event.clientX - before.clientX) + Math.abs(event.clientY - before.clientY);
    if (others.length) {
      const spread = (p) => Math.hypot(p.clientX - others[0].clientX, p.clientY - others[0].clientY) || 1;
      zoom(spread(event) / spread(before), event.offsetX, event.offsetY);
    } else if (view.k > 1) {
      view.x += event.clientX - before.clientX;
      view.y += event.clientY - before.clientY;
      soon();
    }
    down.set(event.pointerId, event);
  });
  on("pointerup", (event) => {
    down.delete(event.pointerId);
    if (moved > 6) return;
    const i = closest(event.offsetX, event.offsetY, event.pointerType === "mouse" ? 14 : 28);
    choose(i);
    if (i >= 0) say(event.pageX, event.pageY, ...said(i));
    else hush();
  });
  on("pointercancel", (event) => down.delete(event.pointerId));
  on("pointerleave", (event) => event.pointerType === "mouse" && hush());
  on("wheel", (event) => {
    if (document.activeElement !== canvas && !event.ctrlKey) return;
    event.preventDefault();
    zoom(Math.exp(-event.deltaY / 300), event.offsetX, event.offsetY);
  }, { passive: false });
  on("keydown", (event) => {
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (event.key === "+" || event.key === "-") return zoom(event.key === "+" ? 1.5 : 1 / 1.5);
    if (!way) return;
    event.preventDefault();
    const [x, y] = at < 0 ? [wide() / 2, high() / 2] : xy(at);
    let best = -1, least = Infinity;
    for (let i = 0; i < count; i++) {
      const [dx, dy] = [xy(i)[0] - x, xy(i)[1] - y], along = dx * way[0] + dy * way[1];
      const cost = along + 3 * Math.abs(dx * way[1] + dy * way[0]);
      if (i !== at && along > 0.5 && cost < least) [best, least] = [i, cost];
    }
    if (best >= 0) choose(best);
  });
  for (const button of home.querySelectorAll("button")) {
    button.addEventListener("click", () => {
      const { act, place, label } = button.dataset;
      if (act) zoom({ in: 1.5, out: 1 / 1.5, all: 0 }[act]);
      if (place) kind = place;
      if (label) chosen.delete(+label) || chosen.add(+label);
      for (const other of home.querySelectorAll("button[data-place]")) other.ariaPressed = other.dataset.place === kind;
      if (label) button.ariaPressed = chosen.has(+label);
      soon();
    });
  }
  for (const media of ["(prefers-color-scheme: dark)", "print"]) matchMedia(media).addEventListener("change", theme);
  new ResizeObserver(soon).observe(canvas);
  atlas?.addEventListener("load", soon);
  theme();
}
