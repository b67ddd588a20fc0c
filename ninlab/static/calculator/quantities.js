/* How bytes, counts and seconds are written: as ninlab.units writes them. */

/** A number with so many decimals as Python writes it: ties go to the even digit. */
function rounded(value, decimals) {
  const digits = value.toFixed(60);
  const cut = digits.indexOf(".") + 1 + decimals;
  const kept = digits.slice(0, decimals ? cut : cut - 1);
  const tie = /^50*$/.test(digits.slice(cut));
  return tie && "02468".includes(kept.at(-1)) ? kept : value.toFixed(decimals);
}

function threeDigits(value) {
  const size = Math.abs(value);
  return rounded(value, size >= 99.95 ? 0 : size >= 9.995 ? 1 : 2);
}

/** Whether a value is written as one of a unit or more, not as 1000 or 1024 of the one below. */
const reaches = (value, size, step) => Math.abs(value) >= size * (1 - 0.5 / step);

/** A value in the largest unit in which it is at least one. */
function scaled(value, units, step, smallest) {
  for (const [size, unit] of units) {
    if (reaches(value, size, step)) return `${threeDigits(value / size)} ${unit}`;
  }
  return `${value}${smallest}`;
}

const powers = (base, units) => units.map((unit, i) => [base ** (units.length - i), unit]);
const BYTES = {
  binary: [powers(1024, ["TiB", "GiB", "MiB", "KiB"]), 1024],
  decimal: [powers(1000, ["TB", "GB", "MB", "kB"]), 1000],
};
const COUNTS = powers(1000, ["T", "G", "M", "k"]);
const { format: grouped } = new Intl.NumberFormat("en-US");

function bytesText(value, units) {
  return units === "exact" ? `${grouped(value)} B` : scaled(value, ...BYTES[units], " B");
}

function countText(value, units) {
  return units === "exact" ? grouped(value) : scaled(value, COUNTS, 1000, "");
}

function secondsText(value) {
  if (value >= 120) return `${Math.floor(Math.round(value) / 60)} min ${Math.round(value) % 60} s`;
  for (const [size, unit] of [[1, "s"], [1e-3, "ms"], [1e-6, "µs"]]) {
    if (reaches(value, size, 1000)) return `${threeDigits(value / size)} ${unit}`;
  }
  return `${threeDigits(value / 1e-9)} ns`;
}

/** 1, 2 or 5 times a power of ten, not above the value. */
function roundDecimal(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [5, 2, 1].find((digit) => digit * power <= value) * power;
}
