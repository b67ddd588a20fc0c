/* Counting: evaluates what ninlab.calculator recorded, and plays a step event by event.
 *
 * No formula of a network stands here. A program is a list of polynomials in the height and
 * the width of the image and a few numbers more, recorded while ninlab's own formulas ran.
 * What is exact is at most 2^53; where a number is larger, a sentence says so.
 */

/** A wrong value; the message is a sentence. */
class Refusal extends Error {}

class TooLarge extends Error {}

function exact(value) {
  if (!Number.isSafeInteger(value)) throw new TooLarge();
  return value;
}

/** The function that gives the polynomials of a program, by number, at these symbols. */
function evaluation(program, symbols, certain = exact) {
  const atoms = program.symbols.map((name) => symbols[name]);
  const known = [];
  const product = ([coefficient, ...factors]) =>
    certain(factors.reduce((total, atom) => total * atoms[atom], coefficient));
  const value = (number) =>
    (known[number] ??= certain(program.sums[number].reduce((sum, term) => sum + product(term), 0)));
  for (const [numerator, divisor] of program.quotients) {
    atoms.push(Math.floor(value(numerator) / divisor));
  }
  return value;
}

/** Throws the sentence of the first check of a program that fails. */
function check(program, value, name) {
  for (const [checked, sentence] of program.guards) {
    if (value(checked) >= 0) continue;
    const pieces = sentence.map((piece) => (typeof piece === "number" ? value(piece) : piece));
    throw new Refusal(pieces.join("").replaceAll("{network}", name));
  }
}

/** The events of a span in order; change is 1 for an allocation and -1 for a release. */
function eventsOf(program, span) {
  let block = 0;
  let layer = 0;
  return program.span_events[span].map((code, i) => {
    block += code >> 1;
    layer += program.span_layers[span][i];
    return {
      change: code & 1 ? -1 : 1,
      block,
      phase: program.span_phases[span],
      layer: program.layers[layer],
      operator: program.operators[program.span_operators[span][i]],
    };
  });
}

/** What is alive after each event, and the first moment at which it is most.
 *
 * bytes is constant + perImage * batch, and stack is the same bytes by category.
 */
function played(program, value, spans, batch) {
  const blocks = program.blocks.map(([first, second, category]) => {
    const [constant, perImage] = [value(first), value(second)];
    return { constant, perImage, bytes: constant + exact(perImage * batch), category };
  });
  const stack = program.categories.map(() => 0);
  let constant = 0;
  let perImage = 0;
  const moments = spans.flatMap((span) => (program.events[span] ??= eventsOf(program, span))).map((event) => {
    const block = blocks[event.block];
    constant += event.change * block.constant;
    perImage += event.change * block.perImage;
    stack[block.category] += event.change * block.bytes;
    return { event, constant, perImage, bytes: exact(constant + perImage * batch), stack: [...stack] };
  });
  const peak = moments.reduce((most, moment) => (moment.bytes > most.bytes ? moment : most));
  return { moments, peak };
}

/** The largest batch with which a step never has more than that many bytes alive. */
function largestBatch({ moments }, available) {
  let largest = Infinity;
  for (const { constant, perImage } of moments) {
    if (constant + perImage > available) return 0;
    if (perImage > 0) largest = Math.min(largest, Math.floor((available - constant) / perImage));
  }
  return largest;
}

/** The sum over operators of the longer of arithmetic and bytes; null without a sourced rate. */
function leastSeconds(program, value, works, device, precision) {
  const rate = device.flops_per_second?.[precision];
  const bandwidth = device.bytes_per_second;
  if (!rate || !bandwidth) return null;
  let seconds = 0;
  for (const work of works) {
    const [flopSteps, byteSteps, times] = program.works[work];
    let flops = 0;
    let bytes = 0;
    times.forEach((count, i) => {
      flops += flopSteps[i];
      bytes += byteSteps[i];
      seconds += count * Math.max(value(flops) / rate, value(bytes) / bandwidth);
    });
  }
  return seconds;
}

/** Everything there is to say about a network, or a Refusal.
 *
 * A network is { name, shape, program, symbols }, settings are { batch, optimizer, precision,
 * elementBytes }; a program tells precisions apart by the bytes of their elements.
 */
function costs({ name, shape, program, symbols }, { batch, optimizer, precision, elementBytes }) {
  const step = `${optimizer} ${elementBytes}`;
  const training = (value, images) => played(program, value, program.training[step], images);
  try {
    const value = evaluation(program, symbols);
    check(program, value, name);
    const [constant, perImage] = program.saved[elementBytes].map(value);
    // Seconds are rounded in any case: for them a number may be larger than what is exact.
    const rough = evaluation(program, { ...symbols, batch }, (number) => number);
    return {
      parameters: value(program.parameters),
      macs: value(program.macs),
      flops: exact(2 * value(program.macs)),
      training: training(value, batch),
      inference: played(program, value, program.inference[elementBytes], batch),
      saved: constant + perImage * batch,
      seconds: (device) => leastSeconds(program, rough, program.work[step], device, precision),
    };
  } catch (error) {
    if (!(error instanceof TooLarge)) throw error;
  }
  const beyond = `beyond ${grouped(Number.MAX_SAFE_INTEGER)} bytes, up to which this page counts exactly`;
  let largest = 0;
  try {
    largest = largestBatch(training(evaluation(program, symbols), 1), Number.MAX_SAFE_INTEGER);
  } catch (error) {
    if (!(error instanceof TooLarge)) throw error;
  }
  throw new Refusal(
    largest
      ? `${name} with a batch of ${grouped(batch)} is ${beyond}; the largest batch it can count is ${grouped(largest)}`
      : `${name} at ${shape.join("x")} is ${beyond}; choose a smaller image`,
  );
}
