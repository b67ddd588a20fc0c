/* The calculator in a page: has the chosen networks counted, and shows the result. */

const ADDRESS = "calculator"; // the first word of an address that holds a state
const NARROWEST = 240; // pixels of a curve in a page that is not laid out
const PATIENCE = 400; // milliseconds without a change before a screen reader is told
const CATEGORY_TITLES = {
  parameter: "parameters",
  gradient: "gradients",
  optimizer_state: "optimizer state",
  activation: "activations",
  temporary: "temporaries",
  input: "images and labels",
};

class Calculator {
  constructor(host, data) {
    this.host = host;
    this.data = data;
    this.root = host.attachShadow({ mode: "open" });
    this.root.append(host.querySelector("template").content.cloneNode(true));
    this.find = (selector) => this.root.querySelector(selector);
    this.fields = new Fields(this.find("form"), this.find("#side"), data);
    this.start = JSON.parse(host.dataset.start);
    this.fields.state = this.start;
    this.listen();
    this.render();
    this.summarize();
  }

  listen() {
    const { form } = this.fields;
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("input", ({ target }) => {
      if (target.name === "network") this.fields.reset(target.closest("fieldset").dataset.side);
      if (target.name === "memory") this.fields.proposeSize();
      this.say("#address-refusal", "");
      this.render();
      clearTimeout(this.pending);
      this.pending = setTimeout(() => this.settle(), PATIENCE);
    });
    for (const button of this.root.querySelectorAll("[data-copies]")) {
      button.addEventListener("click", () => this.copy(button.dataset.copies));
    }
    this.find("[data-again]").addEventListener("click", () => {
      this.fields.state = this.start;
      this.say("#address-refusal", "");
      this.render();
      this.settle();
    });
    // JupyterLab has an address of its own, and so has the page around an isolated frame.
    this.hasAddress = !document.querySelector("[data-jp-theme-light]") && window === window.top;
    if (this.hasAddress) {
      if (this.recall()) this.host.scrollIntoView();
      addEventListener("hashchange", () => {
        if (!this.recall()) return;
        this.render();
        this.summarize();
      });
    }
    const surroundings = new MutationObserver(() => this.followTheme());
    surroundings.observe(document.documentElement, { attributes: true });
    surroundings.observe(document.body, { attributes: true });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.followTheme());
    this.followTheme();
    this.width = this.host.clientWidth;
    new ResizeObserver(([{ contentRect }]) => {
      this.width = contentRect.width;
      if (this.columns.length) this.drawCurves();
      this.letScroll();
    }).observe(this.host);
  }

  /** Whatever page this is in: where its text is light, its theme is dark. */
  followTheme() {
    const color = getComputedStyle(this.host).color;
    const [red, green, blue] = color.match(/[\d.]+/g).map(Number);
    const white = color.startsWith("rgb") ? 255 : 1;
    this.host.dataset.theme = red + green + blue > 1.5 * white ? "dark" : "light";
  }

  /** Take over the state in the address; whether there is one. What it leaves out is as at the start. */
  recall() {
    const [word, ...pairs] = location.hash.slice(1).split("&");
    if (word !== ADDRESS) return false;
    this.fields.state = this.start;
    this.fields.state = Object.fromEntries(new URLSearchParams(pairs.join("&")));
    const unknown = this.fields.unknown.join(", ");
    this.say("#address-refusal", unknown && `the address asks for what is no choice here: ${unknown}`);
    return true;
  }

  /** What is too slow to follow every key: the address, and what a screen reader says. */
  settle() {
    this.summarize();
    this.letScroll();
    if (!this.hasAddress) return;
    history.replaceState(history.state, "", `#${ADDRESS}&${new URLSearchParams(this.fields.state)}`);
  }

  // ------------------------------------------------------------ showing

  render() {
    this.fields.fold();
    this.settings = this.attempt("#refusal", () => this.fields.settings());
    this.columns = SIDES.map((side) =>
      this.attempt(`#${side}-refusal`, () => {
        const network = this.fields.network(side);
        return network && this.settings && { side, ...network, ...costs(network, this.settings) };
      }),
    ).filter(Boolean);
    for (const part of this.root.querySelectorAll(".shown")) part.hidden = !this.columns.length;
    if (this.columns.length) {
      this.showResults();
      this.showDevices();
      this.drawCurves();
      this.showSnippets();
    }
  }

  /** What the action returns; its Refusal is said at that place instead. */
  attempt(place, action) {
    let result;
    let sentence = "";
    try {
      result = action();
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      sentence = error.message;
    }
    this.say(place, sentence);
    return result;
  }

  /** Say a sentence at a place, once. */
  say(place, sentence) {
    const said = this.find(place);
    if (said.textContent !== sentence) said.textContent = sentence; // else it is read out again
  }

  /** Let the arrow keys scroll what is wider than the page. */
  letScroll() {
    for (const region of this.root.querySelectorAll(".scrolls")) {
      region.tabIndex = region.scrollWidth > region.clientWidth ? 0 : -1;
    }
  }

  /** The rows of the large table: name, title, kind of quantity, its value, and its category. */
  rows() {
    const { memory_bytes: memory } = this.settings.device;
    const peak = (phase, title) => [
      [phase, title, "bytes", (column) => column[phase].peak.bytes],
      ...this.data.categories.map((category, i) => [
        `${phase} ${category}`,
        CATEGORY_TITLES[category],
        "part",
        (column) => column[phase].peak.stack[i],
        category,
      ]),
    ];
    return [
      ["parameters", "Parameters", "count", (column) => column.parameters],
      ["macs", "MACs", "count", (column) => column.macs],
      ["flops", "FLOPs, 2 × MACs", "count", (column) => column.flops],
      ["saved", "Saved for backward", "bytes", (column) => column.saved],
      ...peak("training", "Peak of training"),
      ["line", "as a line near this batch", "line", (column) => column.training.peak],
      ...peak("inference", "Peak of inference"),
      ["largest", "Largest batch, training", "batch", (column) => largestBatch(column.training, memory)],
      ["largest inference", "Largest batch, inference", "batch", (column) => largestBatch(column.inference, memory)],
      ["seconds", "A step takes at least", "seconds", (column) => column.seconds(this.settings.device)],
    ];
  }

  showResults() {
    const { columns } = this;
    const compared = columns.length === SIDES.length;
    const head = element("tr", {}, element("td"), ...columns.map(heading));
    if (compared) head.append(element("th", { scope: "col" }, "Difference"));
    this.find(".results thead").replaceChildren(head);
    const rows = this.rows().flatMap(([name, title, kind, value, category]) => {
      const values = columns.map(value);
      if (kind === "part" && !values.some(Boolean)) return [];
      const color = category ? swatch(category) : null;
      const row = element("tr", { class: kind, "data-row": name }, element("th", { scope: "row" }, color, title));
      row.append(...values.map((one, i) => element("td", { "data-side": columns[i].side }, this.cell(kind, one))));
      if (compared) row.append(element("td", { class: "difference" }, ...this.difference(kind, values)));
      return [row];
    });
    this.find(".results tbody").replaceChildren(...rows);
    this.find(".filled").textContent = this.settings.device.title;
  }

  cell(kind, value) {
    if (value === null) return "–";
    if (kind !== "line") return element("data", { value }, this.written(kind, value));
    const [constant, perImage] = [value.constant, value.perImage].map((bytes) => this.written("bytes", bytes));
    return `${constant} + ${perImage} × batch`;
  }

  written(kind, value) {
    const { units } = this.settings;
    if (kind === "batch") return grouped(value);
    if (kind === "count") return countText(value, units);
    return kind === "seconds" ? secondsText(value) : bytesText(value, units);
  }

  /** The second value less the first, and how many times as large it is. */
  difference(kind, [first, second]) {
    if (kind === "line" || first === null || second === null) return [];
    if (first === second) return ["none"];
    const amount = `${second > first ? "+" : "−"}${this.written(kind, Math.abs(second - first))}`;
    if (first === 0 || second === 0) return [amount];
    const times = second / first;
    return [element("span", {}, `${amount}, `), `×${times < 0.1 ? times.toPrecision(3) : threeDigits(times)}`];
  }

  showDevices() {
    const head = element("tr", {}, element("th", { scope: "col" }, "Device"), ...this.columns.map(heading));
    this.find(".devices thead").replaceChildren(head);
    const cell = ({ side, training, seconds }, device) => {
      const fits = training.peak.bytes <= device.memory_bytes;
      const least = seconds(device);
      return element(
        "td",
        { "data-side": side },
        element("b", { class: fits ? "fits" : "exceeds" }, fits ? "✓ fits" : "✗ does not fit"),
        element("span", {}, `batch ≤ ${grouped(largestBatch(training, device.memory_bytes))}`),
        least === null ? null : element("span", {}, `step ≥ ${secondsText(least)}`),
      );
    };
    const rows = this.data.devices.map((device) => {
      const memory = element("small", {}, bytesText(device.memory_bytes, "decimal"));
      const title = element("th", { scope: "row" }, device.title, memory);
      return element("tr", { "data-row": device.name }, title, ...this.columns.map((column) => cell(column, device)));
    });
    this.find(".devices tbody").replaceChildren(...rows);
  }

  drawCurves() {
    const { columns } = this;
    const curves = this.find(".curves");
    const shared = {
      top: Math.max(...columns.map(({ training }) => training.peak.bytes)),
      width: Math.max(this.width, NARROWEST),
      limit: this.settings.device,
      units: this.settings.units,
      phases: this.data.phases,
      categories: this.data.categories,
    };
    const drawings = columns.map(({ side, title, training }) => curve({ side, title, ...training, ...shared }));
    const alive = this.data.categories.filter((_, i) =>
      columns.some(({ training }) => training.moments.some(({ stack }) => stack[i])),
    );
    const legend = alive.map((category) => element("span", {}, swatch(category), CATEGORY_TITLES[category]));
    curves.replaceChildren(element("p", { class: "legend" }, ...legend), ...drawings);
  }

  showSnippets() {
    this.find("#python").textContent = python(this.columns, this.settings);
    this.find("#command").textContent = command(this.columns, this.settings);
    this.find(".note").hidden = !this.columns.some(({ options }) => options);
  }

  async copy(name) {
    const text = this.find(`#${name}`);
    const said = this.find(".copied");
    try {
      await navigator.clipboard.writeText(text.textContent);
      said.textContent = "Copied.";
    } catch {
      getSelection().selectAllChildren(text); // a frame without a clipboard
      said.textContent = "Selected; Ctrl+C copies it.";
    }
  }

  /** One sentence a network: what changed, for who does not see it. */
  summarize() {
    const sentences = this.columns.map(({ title, shape, parameters, macs, training, inference }) => {
      const [trains, predicts] = [training, inference].map(({ peak }) => this.written("bytes", peak.bytes));
      return (
        `${title} at ${shape.join("×")} has ${this.written("count", parameters)} parameters and needs ` +
        `${this.written("count", macs)} MACs an image; with a batch of ${grouped(this.settings.batch)} its ` +
        `tensors take ${trains} in training and ${predicts} in inference.`
      );
    });
    this.find(".summary").textContent = sentences.join(" ");
  }
}

/** The heading of a network's column. */
function heading({ title, shape }) {
  return element("th", { scope: "col" }, title, element("small", {}, shape.join("×")));
}

/** A patch of a category's color. */
function swatch(category) {
  return element("i", { class: "swatch", "data-category": category });
}

/* The letters of base 85 as RFC 1924 orders them, a comma for < and a point for &. */
const LETTERS =
  "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%.()*+-;,=>?@^_`{|}~";

/** The bytes of a text in base 85: four of five letters. */
function decoded(text) {
  const missing = (5 - (text.length % 5)) % 5;
  const digits = Array.from(text + "~".repeat(missing), (letter) => LETTERS.indexOf(letter));
  const bytes = new DataView(new ArrayBuffer((digits.length / 5) * 4));
  for (let at = 0; at < digits.length; at += 5) {
    const number = digits.slice(at, at + 5).reduce((sum, digit) => 85 * sum + digit, 0);
    bytes.setUint32((at / 5) * 4, number);
  }
  return bytes.buffer.slice(0, bytes.byteLength - missing);
}

async function unpacked(text) {
  const stream = new Blob([decoded(text)]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).json();
}

for (const host of document.querySelectorAll(".ninlab-calculator:not([data-status])")) {
  host.dataset.status = "loading"; // the next calculator of the page runs this script again
  unpacked(host.querySelector("script[type='text/plain']").textContent).then((data) => {
    new Calculator(host, data);
    host.dataset.status = "ready";
  });
}
