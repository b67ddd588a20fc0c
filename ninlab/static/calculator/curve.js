/* The memory of one step as a picture: what is alive after each event, by category. */

const SETUP = "setup";
const HEIGHT = 190; // pixels
const HEADROOM = 18; // pixels above the peak, for the names of the phases
const LETTER = 7; // pixels, more than a letter of the picture takes

/** A figure to walk through, with a slider, the pointer, or the arrow keys.
 *
 * side tells the two networks apart; top is the memory at the upper edge, of width pixels.
 * limit is the device to fill, phases and categories are the names of their numbers.
 */
function curve({ side, title, moments, peak, top, width, limit, units, phases, categories }) {
  // What a step finds is there at once: of the set-up, only its end belongs to the picture.
  const start = moments.findLastIndex(({ event }) => phases[event.phase] === SETUP);
  const shown = moments.slice(Math.max(start, 0));
  const x = (i) => (i / shown.length) * width;
  const y = (bytes) => HEIGHT - (bytes / top) * (HEIGHT - HEADROOM);
  const cursor = drawn("line", { class: "cursor", y1: 0, y2: HEIGHT });
  const picture = drawn(
    "svg",
    { viewBox: `0 0 ${width} ${HEIGHT}`, height: HEIGHT, "aria-hidden": "true" },
    ...bands(shown, phases, x),
    ...areas(shown, categories, x, y),
    ...levels(top, width, y, limit, units),
    cursor,
  );
  const slider = element("input", {
    type: "range",
    id: `${side}-moment`,
    min: 0,
    max: shown.length - 1,
    value: shown.indexOf(peak),
    "aria-label": `Moment of the training step of ${title}`,
  });
  const readout = element("output", { for: slider.id });
  const show = () => {
    const moment = shown[slider.value];
    const { phase, layer, operator } = moment.event;
    const { bytes } = moment;
    const at = x(Number(slider.value) + 0.5);
    cursor.setAttribute("x1", at);
    cursor.setAttribute("x2", at);
    const where = [phases[phase], layer, operator].filter(Boolean).join(" ");
    readout.textContent = `${where}: ${bytesText(bytes, units)} alive${moment === peak ? ", the peak" : ""}`;
    slider.setAttribute("aria-valuetext", readout.textContent);
  };
  slider.addEventListener("input", show);
  for (const pointing of ["pointerdown", "pointermove"]) {
    picture.addEventListener(pointing, ({ offsetX }) => {
      slider.value = Math.floor((offsetX / picture.clientWidth) * shown.length);
      show();
    });
  }
  show();
  return element("figure", { "data-side": side }, element("figcaption", {}, title), picture, slider, readout);
}

/** A band for each phase, with its name where there is room. */
function bands(moments, phases, x) {
  const spans = [];
  moments.forEach(({ event: { phase } }, i) => {
    if (spans.at(-1)?.phase !== phase) spans.push({ phase, from: i });
    spans.at(-1).to = i + 1;
  });
  return spans.flatMap(({ phase, from, to }, i) => {
    const width = x(to) - x(from);
    const name = phases[phase].replaceAll("_", " ");
    const band = drawn("rect", { class: i % 2 ? "odd band" : "band", x: x(from), y: 0, width, height: HEIGHT });
    if (width < name.length * LETTER) return [band];
    return [band, drawn("text", { x: x(from) + width / 2, y: 12, "text-anchor": "middle" }, name)];
  });
}

/** What is alive, one category on top of the other. */
function areas(moments, categories, x, y) {
  const sides = Array.from({ length: moments.length + 1 }, (_, i) => x(i).toFixed(1));
  const edge = (bytes) => corners(bytes.map((one) => y(one).toFixed(1)), sides);
  let below = moments.map(() => 0);
  return categories.map((category, k) => {
    const above = moments.map(({ stack }, i) => below[i] + stack[k]);
    const points = [...edge(above), ...edge(below).reverse()];
    below = above;
    return drawn("polygon", { "data-category": category, points: points.join(" ") });
  });
}

/** Where the steps of an edge turn: each level holds between two sides. */
function corners(levels, sides) {
  return levels.flatMap((level, i) => [
    ...(level === levels[i - 1] ? [] : [`${sides[i]},${level}`]),
    ...(level === levels[i + 1] ? [] : [`${sides[i + 1]},${level}`]),
  ]);
}

/** Lines of equal memory, and the memory to fill where the step exceeds it. */
function levels(top, width, y, limit, units) {
  const decimal = units === "decimal";
  const step = decimal ? roundDecimal(top / 3) : 2 ** Math.floor(Math.log2(top / 2));
  const lines = [];
  const add = (bytes, kind, text, attributes) =>
    lines.push(
      drawn("line", { class: kind, x1: 0, x2: width, y1: y(bytes), y2: y(bytes) }),
      drawn("text", { y: y(bytes) - 3, ...attributes }, text),
    );
  for (let bytes = step; bytes <= top; bytes += step) {
    add(bytes, "grid", bytesText(bytes, decimal ? "decimal" : "binary"), { x: 2 });
  }
  if (limit.memory_bytes < top) {
    add(limit.memory_bytes, "limit", limit.title, { x: width - 2, "text-anchor": "end" });
  }
  return lines;
}
