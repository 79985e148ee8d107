"use strict";
(() => {
  const root = document.documentElement;
  const store = (value) => { try { if (value === undefined) return localStorage.getItem("vaestro-theme"); localStorage.setItem("vaestro-theme", value); } catch (e) { return null; } };
  const say = (id) => JSON.parse(document.getElementById(id).textContent);
  const narrow = matchMedia("(max-width: 640px)");

  // Colours of figures are names of CSS variables, so that a figure follows the page's theme.
  const coloured = (value, key, css) => {
    if (typeof value === "string") return /color/i.test(key) && value.startsWith("--") ? css.getPropertyValue(value).trim() : value;
    if (Array.isArray(value)) return /color/i.test(key) ? value.map((v) => coloured(v, key, css)) : typeof value[0] === "object" ? value.map((v) => coloured(v, "", css)) : value;
    if (value && typeof value === "object") return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, coloured(v, k, css)]));
    return value;
  };
  // Plotly offers by default to send a figure to its makers' server.
  const config = { showSendToCloud: false, plotlyServerURL: "", displaylogo: false, responsive: true, displayModeBar: "hover", modeBarButtons: [["toImage", "zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]] };
  const makers = new Map();
  const draw = (element, width) => {
    const css = getComputedStyle(root), figure = makers.get(element)();
    const layout = coloured(figure.layout, "", css);
    layout.font = Object.assign({}, layout.font, { family: css.getPropertyValue("--sans").trim() });
    layout.template = {};
    layout.modebar = coloured({ bgcolor: "--none", color: "--muted", activecolor: "--ink" }, "", css);
    const ticks = layout.xaxis && layout.xaxis.tickvals;
    if (ticks && narrow.matches) { const keep = (_, i) => i % Math.ceil(ticks.length / 9) === 0; layout.xaxis.ticktext = layout.xaxis.ticktext.filter(keep); layout.xaxis.tickvals = ticks.filter(keep); }
    if (width) layout.width = width; else layout.autosize = true;
    return Plotly.react(element, coloured(figure.data, "", css), layout, config);
  };
  const drawAll = (width) => { for (const element of makers.keys()) draw(element, width); };

  for (const element of document.querySelectorAll(".plot[data-figure]")) {
    const figure = say(element.dataset.figure);
    makers.set(element, () => figure);
  }

  // The map: each attribute and projection is put together here, from values that lie in the page once.
  const map = document.getElementById("map-plot");
  if (map) {
    const facts = say("map-data"), pick = document.getElementById("map-colour"), project = document.getElementById("map-projection");
    const note = document.getElementById("map-note"), card = document.getElementById("map-card");
    makers.set(map, () => {
      const at = facts.projections[project ? +project.value : 0], by = facts.attributes[pick ? +pick.value : 0];
      const layout = Object.assign({}, facts.layout, { height: narrow.matches ? 400 : 520 });
      const trace = (index, extra) => Object.assign({
        type: "scatter", mode: "markers", hoverinfo: "none", customdata: index, x: index.map((i) => at.x[i]), y: index.map((i) => at.y[i]),
      }, extra);
      const every = at.x.map((_, i) => i);
      note.textContent = `${at.name}: ${at.note}.`;
      if (!by) return { data: [trace(every, { marker: { size: 6, color: "--c1", opacity: 0.75 }, showlegend: false })], layout };
      if (by.kind === "category") {
        const data = by.classes.map((name, c) => trace(every.filter((i) => by.values[i] === c), { name, marker: { size: 6, color: by.colors[c], opacity: 0.8 } }));
        const absent = every.filter((i) => by.values[i] < 0);
        if (absent.length) data.push(trace(absent, { name: "missing", marker: { size: 6, color: "--faint", opacity: 0.6, symbol: "x" } }));
        return { data, layout: Object.assign(layout, { showlegend: true }) };
      }
      const ticks = by.kind === "date" ? [by.low, (by.low + by.high) / 2, by.high] : null;
      const bar = { thickness: 8, len: 0.5, x: 1, xanchor: "right", y: 1, yanchor: "top", outlinewidth: 0, tickfont: { size: 11, color: "--muted" }, nticks: 4 };
      if (ticks) Object.assign(bar, { tickvals: ticks, ticktext: ticks.map((d) => new Date(d * 864e5).toISOString().slice(0, 10)) });
      const css = getComputedStyle(root), colorscale = [0, 1, 2, 3, 4].map((s) => [s / 4, css.getPropertyValue("--s" + s).trim()]);
      return { data: [trace(every, { showlegend: false, marker: {
        size: 6, opacity: 0.85, color: by.values, cmin: by.low, cmax: by.high, colorbar: bar, colorscale } })], layout };
    });
    const value = (a, i) => {
      const v = a.values[i];
      if (a.kind === "category") return v < 0 ? "missing" : a.classes[v];
      if (v === null) return "missing";
      return a.kind === "date" ? new Date(v * 864e5).toISOString().slice(0, 10) : String(+v.toPrecision(4));
    };
    const plain = document.createElement("textarea");
    const unescaped = (text) => { plain.innerHTML = text; return plain.value; };  // a textarea's content is text, whatever it says
    const show = (event) => {
      const point = event.points[0], i = point.customdata;
      card.replaceChildren();
      if (facts.sheet) {
        const s = facts.sheet, zoom = Math.max(1, Math.round(96 / Math.max(s.width, s.height))), picture = document.createElement("i");
        const column = i % s.columns, row = Math.floor(i / s.columns);
        Object.assign(picture.style, { width: `${s.width * zoom}px`, height: `${s.height * zoom}px`, backgroundImage: `url(${s.uri})`,
          backgroundSize: `${s.columns * s.width * zoom}px ${s.rows * s.height * zoom}px`, backgroundPosition: `-${column * s.width * zoom}px -${row * s.height * zoom}px` });
        card.append(picture);
      }
      const list = document.createElement("dl");
      const lines = facts.cards ? facts.columns.map((name, c) => [name, facts.cards[i][c] || "missing"]) : facts.attributes.map((a) => [a.name, value(a, i)]);
      for (const [name, v] of lines.slice(0, 14)) {
        const dt = document.createElement("dt"), dd = document.createElement("dd");
        dt.textContent = unescaped(name); dd.textContent = unescaped(v);
        list.append(dt, dd);
      }
      card.append(list);
      card.style.display = "block";
      const box = map.getBoundingClientRect(), e = event.event, x = e.clientX - box.left, y = e.clientY - box.top;
      card.style.left = `${Math.max(0, x + 18 + card.offsetWidth > box.width ? x - card.offsetWidth - 14 : x + 18)}px`;
      card.style.top = `${Math.max(0, Math.min(y - 20, box.height - card.offsetHeight))}px`;
    };
    draw(map).then(() => {
      map.on("plotly_hover", show);
      map.on("plotly_unhover", () => { card.style.display = "none"; });
    });
    for (const select of [pick, project]) if (select) select.addEventListener("change", () => draw(map));
    narrow.addEventListener("change", () => draw(map));
  }
  drawAll();

  // The theme: as the system has it, until the reader chooses.
  const dark = matchMedia("(prefers-color-scheme: dark)"), button = document.querySelector(".theme");
  const now = () => root.dataset.theme || (dark.matches ? "dark" : "light");
  const label = () => { button.textContent = now() === "dark" ? "Light" : "Dark"; button.setAttribute("aria-label", `Switch to the ${now() === "dark" ? "light" : "dark"} theme`); };
  if (["light", "dark"].includes(store())) root.dataset.theme = store();
  button.addEventListener("click", () => { root.dataset.theme = now() === "dark" ? "light" : "dark"; store(root.dataset.theme); label(); drawAll(); });
  dark.addEventListener("change", () => { label(); drawAll(); });
  label();
  if (root.dataset.theme) drawAll();

  // On paper: light, and as wide as the paper.
  const printing = matchMedia("print");
  let onPaper = false;
  const paper = (on) => { if (on !== onPaper) { onPaper = on; drawAll(on ? 680 : undefined); } };
  printing.addEventListener("change", (e) => paper(e.matches));
  addEventListener("beforeprint", () => { root.dataset.printing = "1"; onPaper = false; paper(true); });
  addEventListener("afterprint", () => paper(false));

  for (const copy of document.querySelectorAll("button[data-copy]")) copy.addEventListener("click", async () => {
    const code = copy.parentElement.querySelector("code"), said = copy.textContent;
    try { await navigator.clipboard.writeText(code.textContent); } catch (e) {
      const range = document.createRange(); range.selectNodeContents(code);
      getSelection().removeAllRanges(); getSelection().addRange(range); document.execCommand("copy");
    }
    copy.textContent = "Copied"; setTimeout(() => { copy.textContent = said; }, 1500);
  });
  root.dataset.ready = "yes";
})();
