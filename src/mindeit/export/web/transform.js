// What data/transforms.py does with an image, to the same numbers: resize as Pillow does, crop the middle, normalise.

const PRECISION = 1 << 22; // of Pillow's whole-number weights

const FILTERS = {
  bilinear: { support: 1, weight: (x) => Math.max(0, 1 - Math.abs(x)) },
  bicubic: { support: 2, weight: cubic },
  lanczos: { support: 3, weight: (x) => (Math.abs(x) < 3 ? sinc(x) * sinc(x / 3) : 0) },
};

function cubic(x) {
  const a = -0.5;
  x = Math.abs(x);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

function sinc(x) {
  return x === 0 ? 1 : Math.sin(x * Math.PI) / (x * Math.PI);
}

/** Where the model looks: the resized image's size, and the box of it that is kept. */
export function geometry(width, height, card) {
  const short = card.resize_to;
  const long = Math.trunc((short * Math.max(width, height)) / Math.min(width, height));
  const size = width <= height ? [short, long] : [long, short];
  const [x, y] = size.map((length) => middle(length, card.image_size));
  return { width: size[0], height: size[1], x, y };
}

/** First and last pixel of the middle, rounded half to even as Python does. */
function middle(length, size) {
  const half = (length - size) / 2;
  const down = Math.floor(half);
  const near = half - down === 0.5 ? down + (down % 2) : Math.round(half);
  const first = Math.max(0, near);
  return [first, Math.min(length, first + size)];
}

/** RGBA pixels -> float32 (3, S, S), what the model takes. */
export function prepare(pixels, width, height, card) {
  const box = geometry(width, height, card);
  const [left, right] = box.x;
  const [top, bottom] = box.y;
  const columns = weights(width, box.width, left, right, FILTERS[card.interpolation]);
  const rows = weights(height, box.height, top, bottom, FILTERS[card.interpolation]);
  const [first, last] = reach(rows);
  const narrow = resample(pixels, width, 4, columns, right - left, first, last);
  const small = resampleRows(narrow, right - left, rows, bottom - top, first);
  return normalise(small, right - left, bottom - top, card);
}

/** For each pixel from begin to end of an axis that becomes `target` long: the first source pixel and whole weights. */
function weights(length, target, begin, end, filter) {
  const found = [];
  if (length === target) {
    for (let at = begin; at < end; at++) found.push({ low: at, parts: [PRECISION] });
    return found;
  }
  const scale = length / target;
  const stretch = Math.max(1, scale);
  const support = filter.support * stretch;
  const inverse = 1 / stretch;
  for (let at = begin; at < end; at++) {
    const center = (at + 0.5) * scale;
    const low = Math.max(0, Math.trunc(center - support + 0.5));
    const high = Math.min(length, Math.trunc(center + support + 0.5));
    const parts = [];
    let sum = 0;
    for (let tap = 0; tap < high - low; tap++) {
      const weight = filter.weight((tap + low - center + 0.5) * inverse);
      parts.push(weight);
      sum += weight;
    }
    found.push({ low, parts: parts.map((weight) => whole(sum === 0 ? weight : weight / sum)) });
  }
  return found;
}

function whole(weight) {
  return Math.trunc(weight * PRECISION + (weight < 0 ? -0.5 : 0.5));
}

function reach(rows) {
  const last = rows[rows.length - 1];
  return [rows[0].low, last.low + last.parts.length];
}

function clip(sum) {
  return Math.min(255, Math.max(0, Math.floor(sum / PRECISION)));
}

/** Rows first..last of RGBA pixels, as wide as `columns` say: RGB. */
function resample(pixels, width, channels, columns, wide, first, last) {
  const out = new Uint8Array((last - first) * wide * 3);
  for (let y = first; y < last; y++) {
    for (let x = 0; x < wide; x++) {
      const { low, parts } = columns[x];
      const sums = [PRECISION / 2, PRECISION / 2, PRECISION / 2];
      let from = (y * width + low) * channels;
      for (const part of parts) {
        for (let color = 0; color < 3; color++) sums[color] += pixels[from + color] * part;
        from += channels;
      }
      const to = ((y - first) * wide + x) * 3;
      for (let color = 0; color < 3; color++) out[to + color] = clip(sums[color]);
    }
  }
  return out;
}

function resampleRows(pixels, wide, rows, high, first) {
  const out = new Uint8Array(high * wide * 3);
  const line = wide * 3;
  for (let y = 0; y < high; y++) {
    const { low, parts } = rows[y];
    for (let x = 0; x < line; x++) {
      let sum = PRECISION / 2;
      for (let tap = 0; tap < parts.length; tap++) sum += pixels[(low - first + tap) * line + x] * parts[tap];
      out[y * line + x] = clip(sum);
    }
  }
  return out;
}

/** RGB bytes -> float32 planes, each step rounded to float32; a smaller image lies in the middle of black. */
function normalise(pixels, width, height, card) {
  const size = card.image_size;
  const [dx, dy] = [Math.floor((size - width) / 2), Math.floor((size - height) / 2)];
  const out = new Float32Array(3 * size * size);
  for (let color = 0; color < 3; color++) {
    const [mean, std] = [Math.fround(card.mean[color]), Math.fround(card.std[color])];
    const value = (level) => Math.fround(Math.fround(Math.fround(level / 255) - mean) / std);
    const levels = Float32Array.from({ length: 256 }, (_, level) => value(level));
    const plane = out.subarray(color * size * size, (color + 1) * size * size).fill(levels[0]);
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) plane[(y + dy) * size + x + dx] = levels[pixels[(y * width + x) * 3 + color]];
    }
  }
  return out;
}
