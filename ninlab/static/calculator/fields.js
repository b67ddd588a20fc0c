/* The fields of the calculator: what the reader has chosen, in words and as an address. */

const SIDES = ["a", "b"];
const OWN = "own";
const NONE = "";
const OTHER_SIZE = "other";
const NO_LAYERS = "0";
const GIBIBYTE = 2 ** 30;
const IMAGE_FIELDS = ["height", "width"];
const OWN_FIELDS = ["layers", "kernel", "factor", "head", "classes", "channels"];
const SHARED_FIELDS = ["batch", "optimizer", "precision", "memory", "gibibytes", "units"];

const HEAD_TITLES = {
  average: "average",
  linear: "linear layer on the class maps",
  fully_connected: "AlexNet's fully connected layers",
};

class Fields {
  constructor(form, template, data) {
    this.form = form;
    this.data = data;
    this.networks = new Map(data.networks.map((network) => [network.name, network]));
    const columns = Object.entries(data.programs);
    this.programs = columns[0][1].map((_, i) => ({
      categories: data.categories,
      events: [], // of each span, once it has been played
      ...Object.fromEntries(columns.map(([name, column]) => [name, column[i]])),
    }));
    this.shared = form.elements;
    form.querySelector(".sides").innerHTML = ["First", "Second"]
      .map((ordinal, i) => template.innerHTML.replaceAll("SIDE", SIDES[i]).replaceAll("ORDINAL", ordinal))
      .join("");
    this.sides = Object.fromEntries(
      SIDES.map((side) => {
        const fields = [...form.querySelectorAll(`[data-side=${side}] :is(input, select)`)];
        return [side, Object.fromEntries(fields.map((field) => [field.name, field]))];
      }),
    );
    this.offer();
  }

  /** Fill every list of choices. */
  offer() {
    const { data } = this;
    const choices = (values, text) => values.map((value) => option(value, text(value)));
    for (const side of SIDES) {
      const { network, layers, kernel, factor, head } = this.sides[side];
      if (side !== SIDES[0]) network.append(option(NONE, "none"));
      network.append(option(OWN, "a NiN of your own"), ...this.byImage());
      layers.append(...choices(data.one_by_one_layers, String));
      kernel.append(...choices(data.inner_kernel_sizes, (size) => `${size}×${size}`));
      const widths = Object.keys(data.block_widths);
      factor.append(...choices(widths, (times) => `×${times}: ${data.block_widths[times].join(", ")}`));
      head.append(...choices(data.heads, (name) => HEAD_TITLES[name]));
    }
    const { optimizer, precision, memory } = this.shared;
    optimizer.append(...choices(Object.keys(data.optimizers), (name) => data.optimizers[name]));
    precision.append(...choices(Object.keys(data.element_bytes), String));
    memory.append(...data.devices.map(({ name, title }) => option(name, title)));
    memory.append(option(OTHER_SIZE, "another size"));
  }

  /** The networks in groups by the image they read. */
  byImage() {
    const groups = new Map();
    for (const { name, title, input_shape } of this.data.networks) {
      const label = `reads ${input_shape.join("×")}`;
      if (!groups.has(label)) groups.set(label, element("optgroup", { label }));
      groups.get(label).append(option(name, title));
    }
    return groups.values();
  }

  /** Bring the fields of a network that was just chosen to its own values. */
  reset(side) {
    const fields = this.sides[side];
    const { own } = this.data;
    const [, height, width] = this.networks.get(fields.network.value)?.input_shape ?? own.input_shape;
    for (const [name, value] of Object.entries({ ...own.knobs, height, width })) fields[name].value = value;
  }

  /** Show only what the choices made so far leave open. */
  fold() {
    for (const side of SIDES) {
      const { network, layers, kernel } = this.sides[side];
      kernel.disabled = layers.value === NO_LAYERS;
      const fieldset = network.closest("fieldset");
      for (const part of fieldset.querySelectorAll(".image")) part.hidden = network.value === NONE;
      for (const part of fieldset.querySelectorAll(".own")) part.hidden = network.value !== OWN;
    }
    this.form.querySelector(".size").hidden = this.shared.memory.value !== OTHER_SIZE;
  }

  // ------------------------------------------------------------ as an address

  /** Every field that matters, by its name in an address. */
  get state() {
    const state = {};
    for (const side of SIDES) {
      const fields = this.sides[side];
      const chosen = fields.network.value;
      const names = chosen === NONE ? [] : chosen === OWN ? [...IMAGE_FIELDS, ...OWN_FIELDS] : IMAGE_FIELDS;
      for (const name of ["network", ...names]) state[`${side}-${name}`] = fields[name].value;
    }
    for (const name of SHARED_FIELDS) {
      if (name !== "gibibytes" || this.shared.memory.value === OTHER_SIZE) state[name] = this.shared[name].value;
    }
    return state;
  }

  /** Take over a state; what is not among the choices stays as it is, and `unknown` lists it. */
  set state(state) {
    this.unknown = [];
    const fill = (field, name) => {
      const value = state[name];
      if (value === undefined) return;
      const before = field.value;
      field.value = value;
      if (field.selectedIndex !== -1) return;
      field.value = before;
      this.unknown.push(`${name}=${value}`);
    };
    for (const side of SIDES) {
      const fields = this.sides[side];
      fill(fields.network, `${side}-network`);
      this.reset(side);
      for (const name of [...IMAGE_FIELDS, ...OWN_FIELDS]) fill(fields[name], `${side}-${name}`);
    }
    for (const name of SHARED_FIELDS) fill(this.shared[name], name);
    this.proposeSize();
  }

  /** Another size begins with that of the device chosen before it, in whole GiB. */
  proposeSize() {
    const { memory, gibibytes } = this.shared;
    const chosen = this.data.devices.find(({ name }) => name === memory.value);
    if (chosen) gibibytes.value = Math.max(1, Math.floor(chosen.memory_bytes / GIBIBYTE));
  }

  // ------------------------------------------------------------ as values

  /** Batch, optimizer, precision, memory and units, or a Refusal. */
  settings() {
    const { batch, optimizer, precision, units } = this.shared;
    return {
      batch: whole(batch, "batch size"),
      optimizer: optimizer.value,
      precision: precision.value,
      elementBytes: this.data.element_bytes[precision.value],
      device: this.device(),
      units: units.value,
    };
  }

  device() {
    const { memory, gibibytes } = this.shared;
    gibibytes.removeAttribute("aria-invalid");
    if (memory.value !== OTHER_SIZE) return this.data.devices.find(({ name }) => name === memory.value);
    const bytes = Math.floor(Number(gibibytes.value) * GIBIBYTE);
    if (Number.isSafeInteger(bytes) && bytes >= 1) return { title: bytesText(bytes, "binary"), memory_bytes: bytes };
    gibibytes.setAttribute("aria-invalid", "true");
    const limit = Math.floor(Number.MAX_SAFE_INTEGER / GIBIBYTE);
    throw new Refusal(`the memory must be above 0 and at most ${grouped(limit)} GiB`);
  }

  /** The network of one side as `costs` and `snippets` take it, null for none, or a Refusal. */
  network(side) {
    const fields = this.sides[side];
    const chosen = this.networks.get(fields.network.value);
    if (fields.network.value === NONE) return null;
    const height = whole(fields.height, "image height");
    const width = whole(fields.width, "image width");
    if (!chosen) return this.own(fields, height, width);
    const { name, title, input_shape: [channels], program } = chosen;
    const shape = [channels, height, width];
    return { name, title, shape, program: this.programs[program], symbols: { height, width } };
  }

  own({ layers, kernel, factor, head, classes, channels: field }, height, width) {
    const num_classes = whole(classes, "number of classes");
    const channels = whole(field, "number of image channels");
    const [width1, width2, width3] = this.data.block_widths[factor.value];
    // Where there are no inner layers, their window makes no difference and no design.
    const inner = layers.value === NO_LAYERS ? this.data.inner_kernel_sizes[0] : kernel.value;
    const design = this.data.designs[`${layers.value} ${inner} ${head.value}`];
    return {
      name: "your NiN",
      title: "Your NiN",
      shape: [channels, height, width],
      program: this.programs[design],
      symbols: { height, width, channels, classes: num_classes, width1, width2, width3 },
      options: {
        num_classes,
        one_by_one_layers: layers.value,
        inner_kernel_size: inner,
        width_factor: factor.value,
        head: `Head("${head.value}")`,
      },
    };
  }
}

/** The whole number of at least 1 in a field; a Refusal calls it by that name. */
function whole(field, name) {
  const value = Number(field.value);
  field.removeAttribute("aria-invalid");
  if (Number.isSafeInteger(value) && value >= 1) return value;
  field.setAttribute("aria-invalid", "true");
  let rule = `at most ${grouped(Number.MAX_SAFE_INTEGER)}, not ${field.value}`;
  if (value < 1) rule = `at least 1, not ${field.value}`;
  if (field.value === "" || !Number.isInteger(value)) rule = "a whole number of at least 1";
  throw new Refusal(`the ${name} must be ${rule}`);
}
