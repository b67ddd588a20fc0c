/* Draws the figures of a page.
 *
 * Each .ninlab-figure carries its Plotly JSON. plotly.js, the same file for the whole
 * book, is fetched once; a figure is drawn when it comes near the window, the rest when
 * the browser is idle, so that a printed page is complete. The theme's template is
 * applied here, and again when the reader switches the theme. A slider becomes the browser's
 * own, for Plotly's cannot be moved with the keyboard and is no slider to a screen reader.
 */
(() => {
  "use strict";
  const NARROW = 560; // pixels; below it legends go under the plot and margins shrink
  const SLIDER_HEIGHT = 48; // pixels
  const PAPER = 600; // pixels across a column of print, which tells no script its width
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

  const isObject = (value) => value?.constructor === Object;

  // Both settings; where they differ, the second.
  const merged = (one, other) => {
    const both = { ...one };
    for (const [key, value] of Object.entries(other)) {
      both[key] = isObject(value) && isObject(one[key]) ? merged(one[key], value) : value;
    }
    return both;
  };

  // What the author chose for a narrow column, what he chose for all, what a phone needs.
  const narrowed = (layout) =>
    merged(
      merged(
        {
          legend: { orientation: "h", x: 0, y: -0.25, yanchor: "top" },
          margin: { l: 48, r: 8 },
        },
        layout,
      ),
      layout.meta?.narrow ?? {},
    );

  function slider({ currentvalue, steps, active = 0 }, plot) {
    const label = document.createElement("label");
    const [text, input] = ["span", "input"].map((name) => document.createElement(name));
    label.className = "ninlab-slider";
    Object.assign(input, { type: "range", min: 0, max: steps.length - 1, value: active });
    const say = () => {
      text.textContent = `${currentvalue?.prefix ?? ""}${steps[input.value].label}`;
      input.setAttribute("aria-valuetext", text.textContent);
    };
    input.addEventListener("input", () => {
      const { method, args } = steps[input.value];
      Plotly[method](plot, ...args);
      say();
    });
    say();
    label.append(text, input);
    return label;
  }

  // A picture of a plot for a page that is not this one: on white, called as the figure is.
  const saveImage = (plot) =>
    Plotly.downloadImage(
      {
        data: plot.data,
        layout: { ...plot.layout, template: ninlabTemplates.light, paper_bgcolor: "#ffffff" },
      },
      {
        filename: plot.closest("figure")?.id ?? "figure",
        width: plot.clientWidth,
        height: plot.clientHeight,
        scale: 2,
      },
    );

  async function draw(figure) {
    if (figure.dataset.state) return;
    figure.dataset.state = "waiting";
    const {
      data,
      layout: { sliders = [], ...layout },
      frames,
      config,
    } = JSON.parse(figure.querySelector('script[type="application/json"]').textContent);
    await ready;
    const plot = document.createElement("div");
    plot.className = "ninlab-plot";
    figure.append(plot);
    await Plotly.newPlot(plot, {
      data,
      frames,
      layout: {
        autosize: true,
        ...(figure.clientWidth < NARROW ? narrowed(layout) : layout),
        height: parseFloat(figure.style.minHeight) - sliders.length * SLIDER_HEIGHT,
        template: ninlabTemplates[theme()],
      },
      config: {
        displaylogo: false,
        showSendToCloud: false,
        displayModeBar: matchMedia("(hover: none)").matches ? false : "hover",
        // Nothing reads a selection, and the ranges that fit all marks have no room for labels.
        modeBarButtonsToRemove: ["toImage", "select2d", "lasso2d", "autoScale2d"],
        modeBarButtonsToAdd: [
          { name: "image", title: "Save as a PNG", icon: Plotly.Icons.camera, click: saveImage },
        ],
        ...config,
      },
    });
    figure.append(...sliders.map((one) => slider(one, plot)));
    if (figure.scrollWidth > figure.clientWidth) figure.tabIndex = 0; // the arrow keys scroll it
    figure.dataset.state = "drawn";
  }

  function rearrange(change) {
    for (const figure of figures) {
      if (figure.dataset.state === "drawn") {
        const plot = figure.querySelector(".ninlab-plot");
        Plotly.relayout(plot, change(plot));
      }
    }
  }

  const inTheme = (name) => () => ({ template: ninlabTemplates[name] });
  const onPaper = (plot) => ({
    template: ninlabTemplates.light,
    width: Math.min(plot.clientWidth, PAPER),
  });
  const onScreen = () => ({ template: ninlabTemplates[theme()], width: null, autosize: true });

  const near = new IntersectionObserver(
    (entries) => {
      for (const { isIntersecting, target } of entries) if (isIntersecting) draw(target);
    },
    { rootMargin: "800px" },
  );
  figures.forEach((figure) => near.observe(figure));

  const whenIdle = window.requestIdleCallback ?? ((task) => setTimeout(task, 200));
  ready.then(() => figures.forEach((figure) => whenIdle(() => draw(figure))));

  const observer = new MutationObserver(() => rearrange(inTheme(theme())));
  observer.observe(root, { attributeFilter: ["data-theme"] });
  let printing = false;
  addEventListener("beforeprint", () => {
    printing = true;
    rearrange(onPaper);
  });
  // The page is still laid out for paper when a browser says that it has printed.
  addEventListener("afterprint", () =>
    requestAnimationFrame(() => {
      printing = false;
      rearrange(onScreen);
    }),
  );

  // plotly.js looks at the window only; a column also changes when a sidebar opens or closes, and
  // when the page is laid out for the screen some time after it was printed.
  const columns = new ResizeObserver((entries) => {
    for (const { target } of entries) {
      const plot = target.querySelector(".ninlab-plot");
      const isDrawn = target.dataset.state === "drawn";
      if (isDrawn && !printing && plot.querySelector("svg").clientWidth !== plot.clientWidth) {
        Plotly.relayout(plot, onScreen());
      }
    }
  });
  figures.forEach((figure) => columns.observe(figure));
})();
