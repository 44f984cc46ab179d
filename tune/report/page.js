"use strict";
// Draws the figures in the colours of the page's theme, again when the theme changes.
(() => {
  const style = () => getComputedStyle(document.documentElement);
  const color = (name) => style().getPropertyValue(name).trim();
  const drawings = new Map();
  for (const script of document.querySelectorAll("script[data-for]")) {
    drawings.set(script.dataset.for, JSON.parse(script.textContent));
  }

  function themed(figure) {
    const copy = structuredClone(figure);
    const ink = color("--ink"), soft = color("--soft"), grid = color("--grid");
    Object.assign(copy.layout, {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: soft, size: 12.5, family: getComputedStyle(document.body).fontFamily },
      hoverlabel: { bgcolor: color("--raised"), bordercolor: color("--line"), font: { color: ink, size: 12.5 }, align: "left" },
    });
    for (const axis of ["xaxis", "yaxis"]) {
      if (copy.layout[axis]) Object.assign(copy.layout[axis], { gridcolor: grid, zerolinecolor: grid, linecolor: grid });
    }
    for (const label of copy.layout.annotations || []) Object.assign(label, { bgcolor: color("--paper"), opacity: 0.85 });
    return copy;
  }

  const settings = { responsive: true, displaylogo: false, displayModeBar: false, scrollZoom: false };

  function draw() {
    for (const [name, drawing] of drawings) {
      const figure = themed(drawing.figure);
      Plotly.react(`plot-${name}`, figure.data, figure.layout, settings);
      show(name, drawing.view);
    }
  }

  function show(name, view) {
    if (!view) return;
    const [data, layout] = drawings.get(name).views[view];
    drawings.get(name).view = view;
    Plotly.update(`plot-${name}`, data, layout);
  }

  for (const button of document.querySelectorAll("button[data-view]")) {
    button.addEventListener("click", () => {
      for (const other of button.parentElement.children) other.setAttribute("aria-pressed", String(other === button));
      show(button.dataset.figure, button.dataset.view);
    });
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  draw();
  if (document.body.dataset.state === "running") setTimeout(() => location.reload(), 60000);
})();
