(async () => {
  "use strict";
  const charts = JSON.parse(document.getElementById("charts").textContent);

  // plotly.js comes packed; the browser unpacks it, so that nothing is fetched.
  const packed = Uint8Array.from(atob(document.getElementById("plotly").textContent), (c) => c.charCodeAt(0));
  const unpacked = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const tag = document.createElement("script");
  tag.textContent = await new Response(unpacked).text();
  document.head.append(tag);

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  // Text and lines follow the page's colour scheme; data keep their colours.
  const themed = (layout) => {
    const ink = colour("--ink"), soft = colour("--soft"), grid = colour("--grid"), paper = colour("--paper");
    const axis = (own) => ({
      automargin: true, gridcolor: grid, zerolinecolor: grid, linecolor: grid, tickfont: { color: soft, size: 12 }, ...own,
      title: { ...(own || {}).title, font: { color: soft, size: 12 }, standoff: 10 },
    });
    return {
      font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: ink },
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      margin: { l: 8, r: 16, t: 26, b: 8 },
      hoverlabel: { bgcolor: paper, bordercolor: grid, font: { color: ink } },
      dragmode: false,
      ...layout,
      legend: { ...(layout.legend || { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" }), font: { color: ink, size: 12 } },
      xaxis: axis(layout.xaxis), yaxis: axis(layout.yaxis),
    };
  };

  const options = { displayModeBar: false, responsive: true };
  const draw = (extra = {}) => Promise.all(Object.entries(charts).map(([id, spec]) =>
    Plotly.react(id, spec.data, { ...themed(spec.layout), ...extra, height: document.getElementById(id).clientHeight }, options)));

  await draw();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => draw());
  const paper = { width: 680, autosize: false };
  // Paper is white and about 700 pixels wide whatever the screen is; colours are read again once print styles hold.
  matchMedia("print").addEventListener("change", (event) => draw(event.matches ? paper : {}));
  document.documentElement.dataset.charts = "drawn";
})();
