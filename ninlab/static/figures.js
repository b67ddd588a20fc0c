/* Draws the figures of a page.
 *
 * Each .ninlab-figure carries its Plotly JSON. plotly.js, the same file for the whole
 * book, is fetched once; a figure is drawn when it comes near the window, the rest when
 * the browser is idle, so that a printed page is complete. The theme's template is
 * applied here, and again when the reader switches the theme.
 */
(() => {
  "use strict";
  const NARROW = 560; // pixels; below it legends go under the plot and margins shrink
  const shared = new URL("ninlab/", document.currentScript.src);
  const root = document.documentElement;
  const figures = [...document.querySelectorAll(".ninlab-figure")];

  const theme = () => (root.dataset.theme === "dark" ? "dark" : "light");

  const load = (name) =>
    new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = new URL(name, shared);
      script.onload = resolve;
      script.onerror = () => reject(new Error(`cannot load ${script.src}`));
      document.head.append(script);
    });
  const ready = Promise.all([load("plotly.min.js"), load("templates.js")]);

  // What the author chose stays; only what was left open is arranged for a phone.
  const narrowed = (layout) => ({
    ...layout,
    font: { size: 11, ...layout.font },
    legend: { orientation: "h", x: 0, y: -0.25, yanchor: "top", ...layout.legend },
    margin: { l: 48, r: 8, ...layout.margin },
  });

  async function draw(figure) {
    if (figure.dataset.state) return;
    figure.dataset.state = "waiting";
    const { data, layout, frames, config } = JSON.parse(
      figure.querySelector('script[type="application/json"]').textContent,
    );
    await ready;
    const plot = document.createElement("div");
    plot.className = "ninlab-plot";
    figure.append(plot);
    await Plotly.newPlot(plot, {
      data,
      frames,
      layout: {
        autosize: true,
        height: parseFloat(figure.style.minHeight),
        ...(figure.clientWidth < NARROW ? narrowed(layout) : layout),
        template: ninlabTemplates[theme()],
      },
      config: {
        responsive: true,
        displaylogo: false,
        showSendToCloud: false,
        displayModeBar: matchMedia("(hover: none)").matches ? false : "hover",
        ...config,
      },
    });
    figure.dataset.state = "drawn";
  }

  function apply(name) {
    for (const figure of figures) {
      if (figure.dataset.state === "drawn") {
        Plotly.relayout(figure.querySelector(".ninlab-plot"), { template: ninlabTemplates[name] });
      }
    }
  }

  const near = new IntersectionObserver(
    (entries) => {
      for (const { isIntersecting, target } of entries) if (isIntersecting) draw(target);
    },
    { rootMargin: "800px" },
  );
  figures.forEach((figure) => near.observe(figure));

  const whenIdle = window.requestIdleCallback ?? ((task) => setTimeout(task, 200));
  ready.then(() => figures.forEach((figure) => whenIdle(() => draw(figure))));

  new MutationObserver(() => apply(theme())).observe(root, { attributeFilter: ["data-theme"] });
  addEventListener("beforeprint", () => apply("light"));
  addEventListener("afterprint", () => apply(theme()));
})();
