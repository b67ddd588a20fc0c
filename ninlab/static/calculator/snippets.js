/* A configuration as the Python and as the command that give the same numbers. */

const OWN_FILE = "my_nin.py"; // where the command looks for a NiN of the reader's own

/** Python that profiles these networks.
 *
 * A network is { side, shape, name }, or for one of the reader's own { side, shape, options }
 * with the arguments of nin_layers.
 */
function python(networks, { batch, optimizer, precision }) {
  const own = networks.filter(({ options }) => options);
  const settings = `batch_size=${batch}, optimizer="${optimizer}", precision="${precision}"`;
  const lines = networks.map(({ side, shape, name, options }) => {
    const network = options ? `nin_${side}()` : `"${name}"`;
    return `${side} = profile(${network}, ${tuple(shape)}, ${settings})`;
  });
  lines.push(
    `for cost in ${tuple(networks.map(({ side }) => side))}:`,
    "    print(cost.network, cost.parameters, cost.macs, cost.saved_bytes)",
    "    print(cost.training.tensor_peak_bytes, cost.inference.tensor_peak_bytes)",
  );
  if (!own.length) return joined(["from ninlab.resources import profile", "", ...lines]);
  return joined([
    "from dataclasses import replace",
    "",
    "from ninlab.architectures import NIN, Head, nin_layers",
    "from ninlab.networks import build",
    "from ninlab.resources import profile",
    ...own.flatMap(factory),
    "",
    "",
    'if __name__ == "__main__":',
    ...lines.map((line) => `    ${line}`),
  ]);
}

/** The lines of a function that builds one network of the reader's own. */
function factory({ side, shape, options }) {
  return [
    "",
    "",
    `def nin_${side}():`,
    "    layers = nin_layers(",
    ...Object.entries(options).map(([name, value]) => `        ${name}=${value},`),
    "    )",
    `    return build(replace(NIN, layers=layers, input_shape=${tuple(shape)}))`,
  ];
}

/** The command that prints the same; one for each size of image. */
function command(networks, { batch, optimizer, precision }) {
  const byShape = new Map();
  for (const { side, shape, name, options } of networks) {
    const input = shape.join("x");
    const argument = options ? `${OWN_FILE}:nin_${side}` : name;
    byShape.set(input, [...(byShape.get(input) ?? []), argument]);
  }
  const settings = `--optimizer ${optimizer} --precision ${precision}`;
  return joined(
    [...byShape].map(
      ([input, names]) =>
        `python -m ninlab resources ${names.join(" ")} --batch-size ${batch} --input ${input} ${settings}`,
    ),
  );
}

const tuple = (values) => (values.length === 1 ? `(${values[0]},)` : `(${values.join(", ")})`);
const joined = (lines) => `${lines.join("\n")}\n`;
