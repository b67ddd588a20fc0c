/* Lets the picture of the two ideas answer: a pixel, an output and a class are chosen.
 *
 * The page carries the values; what they add up to is computed here, as in two_ideas.py.
 * Before the first touch the pixel takes a short walk, once, to show that it can be moved.
 */
(() => {
  "use strict";
  const PACE = 600; // milliseconds for a pixel of the walk
  const WALK = [-1, -2, -3, -2, -1, 0]; // columns from where the picture starts

  const fixed = (value, decimals = 2) => {
    const text = value.toFixed(decimals);
    return text.replace("-", Number(text) ? "−" : "");
  };
  const bracketed = (value, decimals) => {
    const text = fixed(value, decimals);
    return text.startsWith("−") ? `(${text})` : text;
  };
  const within = (value, size) => Math.min(Math.max(value, 0), size - 1);
  const total = (values) => values.reduce((sum, value) => sum + value, 0);

  class TwoIdeas {
    constructor(host) {
      this.host = host;
      this.find = (selector) => host.querySelector(selector);
      this.all = (selector) => [...host.querySelectorAll(selector)];
      const data = JSON.parse(this.find("script[type='application/json']").textContent);
      Object.assign(this, data, data.start);
      const [some] = Object.values(this.mixing.outputs);
      [this.height, this.width] = [some.length, some[0].length];
      this.means = Object.fromEntries(
        Object.entries(this.classes).map(([name, map]) => [name, total(map.flat()) / map.flat().length]),
      );
      this.listen();
      this.invite();
    }

    listen() {
      const pixels = this.find(".inputs");
      const slider = { role: "slider", tabindex: 0, "aria-label": "Pixel of the maps", "aria-valuemin": 0 };
      slider["aria-valuemax"] = this.height * this.width - 1;
      for (const [name, value] of Object.entries(slider)) pixels.setAttribute(name, value);
      for (const map of this.all(".map")) {
        for (const kind of ["pointermove", "pointerdown"]) {
          map.addEventListener(kind, ({ clientX, clientY }) => {
            this.rest();
            const { left, top, width, height } = map.getBoundingClientRect();
            const column = Math.floor(((clientX - left) / width) * this.width);
            this.move(Math.floor(((clientY - top) / height) * this.height), column);
          });
        }
      }
      const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
      steps.Home = [0, -this.width];
      steps.End = [0, this.width];
      pixels.addEventListener("keydown", (event) => {
        const step = steps[event.key];
        if (!step) return;
        event.preventDefault();
        event.stopPropagation(); // a notebook would move to its next cell
        this.rest();
        this.move(this.row + step[0], this.column + step[1]);
      });
      for (const button of this.all("button")) {
        button.disabled = false;
        button.addEventListener("click", () => {
          this.rest();
          const { output } = button.dataset;
          if (output !== undefined) this.choose(Number(output));
          else this.average(button.dataset.class);
        });
      }
      this.host.addEventListener("focusin", () => this.rest());
      this.value();
    }

    /** Walk a few pixels to and fro, once the picture is seen, unless its reader asks for rest. */
    invite() {
      if (matchMedia("(prefers-reduced-motion: reduce)").matches) return;
      const { column } = this;
      const steps = [...WALK];
      this.seen = new IntersectionObserver(([{ isIntersecting }]) => {
        if (!isIntersecting) return;
        this.seen.disconnect();
        this.walk = setInterval(() => {
          this.move(this.row, column + steps.shift());
          if (!steps.length) clearInterval(this.walk);
        }, PACE);
      });
      this.seen.observe(this.find(".inputs"));
    }

    /** The reader has taken over: nothing moves by itself, and a screen reader is told. */
    rest() {
      this.seen?.disconnect();
      clearInterval(this.walk);
      for (const said of this.all(".said")) said.setAttribute("aria-live", "polite");
    }

    // ------------------------------------------------------------ a 1x1 convolution

    move(row, column) {
      this.row = within(row, this.height);
      this.column = within(column, this.width);
      this.mix();
    }

    choose(output) {
      this.output = output;
      this.press("output", output);
      this.mix();
    }

    value() {
      const pixels = this.find(".inputs");
      pixels.setAttribute("aria-valuenow", this.row * this.width + this.column);
      pixels.setAttribute("aria-valuetext", `row ${this.row}, column ${this.column}`);
    }

    mix() {
      const { inputs, outputs, weights, biases } = this.mixing;
      const { row, column, output } = this;
      const at = (map) => map[row][column];
      const terms = Object.values(inputs).map((map, i) => [at(map), weights[output][i]]);
      const products = terms.map(([value, weight]) => value * weight);
      const sum = at(outputs[output]);
      const rest = sum - biases[output] - total(products);
      for (const ring of this.all(".map i")) {
        ring.style.setProperty("--row", row);
        ring.style.setProperty("--column", column);
      }
      for (const [name, value] of Object.entries({ row, column, output })) {
        this.find(`[data-place=${name}]`).textContent = value;
      }
      const numbers = [...terms.flatMap((term, i) => [...term, products[i]]), rest, biases[output], sum];
      this.all(".sum data").forEach((cell, i) => {
        cell.value = numbers[i];
        cell.textContent = fixed(numbers[i]);
      });
      const added = terms.map(([value, weight]) => `${fixed(value)} × ${bracketed(weight)}`);
      added.push(`${bracketed(rest)} from the other channels`, `${bracketed(biases[output])} bias`);
      this.find("[data-idea=mixing] .said").textContent =
        `Row ${row}, column ${column}, output ${output}: ${added.join(" + ")} = ${fixed(sum)}.`;
      this.value();
    }

    // ------------------------------------------------------------ an average

    average(name) {
      this.press("class", name);
      const values = this.classes[name].flat();
      const mean = this.means[name];
      const peak = Math.max(...Object.values(this.classes).flat(2).map(Math.abs));
      this.find(".large .name").textContent = name;
      this.find(".mean b").textContent = fixed(mean, 1);
      this.all(".cells span").forEach((cell, i) => {
        cell.textContent = fixed(values[i], 1);
        cell.style.setProperty("--color", `var(--${values[i] > 0 ? "above" : "below"})`);
        cell.style.setProperty("--share", Math.abs(values[i]) / peak);
      });
      const [first, ...others] = values;
      const added = [fixed(first, 1), ...others.map((value) => bracketed(value, 1))].join(" + ");
      const isBest = mean === Math.max(...Object.values(this.means));
      this.find("[data-idea=averaging] .said").textContent =
        `${name}: (${added}) ÷ ${values.length} = ${fixed(mean, 1)}.` +
        (isBest ? " This is the highest of all: the network's answer." : "");
    }

    press(kind, chosen) {
      for (const button of this.all(`[data-${kind}]`)) {
        button.setAttribute("aria-pressed", button.dataset[kind] === String(chosen));
      }
    }
  }

  for (const host of document.querySelectorAll(".ninlab-two-ideas:not([data-ready])")) {
    host.dataset.ready = ""; // the next picture of the page runs this script again
    new TwoIdeas(host);
  }
})();
