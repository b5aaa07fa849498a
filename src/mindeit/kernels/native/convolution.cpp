// Convolutions as products: what each window of an image holds becomes a column of a matrix. One group of channels and
// some rows of the output at a time, so that the matrix stays in the cache.
//
// Images are padded by half the kernel, and the output's size tells the stride: 1 or 2.

#include "common.h"

constexpr int64_t MOST_FLOATS = 1 << 18;  // in a matrix of windows

struct Convolution {
  int64_t batch, groups, in, out;  // the channels are a group's
  int64_t kernel, height, width, rows, columns, stride, step;

  // Whether there are so many tensors, and those are images, a weight and outputs that fit.
  bool of(const Tensors& t, int count, int images, int weight, int outputs) {
    if (t.count != count) return false;
    batch = t.size(images, 0), in = t.size(weight, 1), kernel = t.size(weight, 2);
    groups = in > 0 ? t.size(images, 1) / in : 0;
    out = groups > 0 ? t.size(weight, 0) / groups : 0;
    height = t.size(images, 2), width = t.size(images, 3), rows = t.size(outputs, 2), columns = t.size(outputs, 3);
    stride = rows == height && columns == width ? 1 : 2;
    if (out <= 0 || kernel % 2 != 1 || height <= 0 || width <= 0 || rows != (height - 1) / stride + 1 ||
        columns != (width - 1) / stride + 1 || !t.fit(images, {{batch, groups * in, height, width}}) ||
        !t.fit(weight, {{groups * out, in, kernel, kernel}}) || !t.fit(outputs, {{batch, groups * out, rows, columns}}))
      return false;
    step = MOST_FLOATS / (taps() * columns);  // rows at a time
    step = step < 1 ? 1 : step < rows ? step : rows;
    return true;
  }

  int64_t taps() const { return in * kernel * kernel; }
  int64_t weights() const { return out * taps(); }
  int64_t places() const { return rows * columns; }
  int64_t steps() const { return (rows + step - 1) / step; }
  int64_t end(int64_t row) const { return row + step < rows ? row + step : rows; }
  int64_t input(int64_t b, int64_t g) const { return (b * groups + g) * in * height * width; }
  int64_t output(int64_t b, int64_t g, int64_t row) const { return (b * groups + g) * out * places() + row * columns; }
  bool sees_itself() const { return kernel == 1 && stride == 1; }  // then an image is its own matrix

  // visit(place, at, from, to): what one tap sees in one of those rows of the output, the next in the matrix (taps,
  // rows * columns). Columns from..to see each stride-th place of the image from this one on, others see padding.
  template <class Visit>
  void windows(int64_t first, int64_t last, Visit visit) const {
    const int64_t padding = kernel / 2;
    int64_t at = 0;
    for (int64_t tap = 0; tap < taps(); tap++) {
      const int64_t channel = tap / (kernel * kernel), down = tap / kernel % kernel - padding;
      const int64_t right = tap % kernel - padding, seen = (width - right + stride - 1) / stride;
      const int64_t from = right < 0 ? (stride - 1 - right) / stride : 0, to = seen < columns ? seen : columns;
      for (int64_t row = first; row < last; row++, at += columns) {
        const int64_t y = row * stride + down;
        const bool inside = y >= 0 && y < height && from < to;
        visit((channel * height + y) * width + from * stride + right, at, inside ? from : columns, inside ? to : columns);
      }
    }
  }

  // The matrix for those rows, written to memory where need be.
  Factor seen(const float* image, int64_t first, int64_t last, float* memory) const {
    if (sees_itself()) return {image + first * columns, places(), false};
    windows(first, last, [&](int64_t place, int64_t at, int64_t from, int64_t to) {
      float* row = memory + at;
      for (int64_t j = 0; j < from; j++) row[j] = 0;
      if (stride == 1)
        memcpy(row + from, image + place, 4 * (to - from));
      else
        for (int64_t j = from; j < to; j++) row[j] = image[place + 2 * (j - from)];
      for (int64_t j = to; j < columns; j++) row[j] = 0;
    });
    return {memory, (last - first) * columns, false};
  }

  // The gradient of the matrix, added to the image's.
  void add(const float* matrix, int64_t first, int64_t last, float* image) const {
    windows(first, last, [&](int64_t place, int64_t at, int64_t from, int64_t to) {
      const float* row = matrix + at;
      if (stride == 1)
        for (int64_t j = from; j < to; j++) image[place + j - from] += row[j];
      else
        for (int64_t j = from; j < to; j++) image[place + 2 * (j - from)] += row[j];
    });
  }
};

static int convolve(Precision precision, const Tensors& t) {  // images, weight -> outputs
  Convolution c;
  if (!c.of(t, 3, 0, 1, 2)) return MISSHAPEN;
  const int64_t taps = c.taps(), steps = c.steps();
  int failed = DONE;
#pragma omp parallel for schedule(static) reduction(| : failed)
  for (int64_t i = 0; i < c.batch * c.groups * steps; i++) {
    const int64_t b = i / steps / c.groups, g = i / steps % c.groups, first = i % steps * c.step, last = c.end(first);
    Scratch scratch(taps * c.step * c.columns);
    const Factor weight{t[1] + g * c.weights(), taps, false};
    const Factor seen = c.seen(t[0] + c.input(b, g), first, last, scratch.take(taps * c.step * c.columns));
    failed |= multiply_here(precision, weight, seen, nullptr, false, t[2] + c.output(b, g, first), c.places(), c.out,
                            (last - first) * c.columns, taps);
  }
  return failed;
}

static int convolve_grad(Precision precision, const Tensors& t) {  // images, whose shape counts; weight, dy -> dimages
  Convolution c;
  if (!c.of(t, 4, 0, 1, 2) || !t.fit(3, {{c.batch, c.groups * c.in, c.height, c.width}})) return MISSHAPEN;
  const int64_t taps = c.taps();
  int failed = DONE;
#pragma omp parallel for schedule(static) reduction(| : failed)
  for (int64_t i = 0; i < c.batch * c.groups; i++) {
    const int64_t b = i / c.groups, g = i % c.groups;
    const Factor weight{t[1] + g * c.weights(), taps, true};
    Scratch scratch(taps * c.step * c.columns);
    float *image = t[3] + c.input(b, g), *matrix = scratch.take(taps * c.step * c.columns);
    if (!c.sees_itself()) memset(image, 0, 4 * c.in * c.height * c.width);
    for (int64_t first = 0; first < c.rows; first += c.step) {
      const int64_t last = c.end(first), places = (last - first) * c.columns;
      const Factor dy{t[2] + c.output(b, g, first), c.places(), false};
      if (c.sees_itself()) {
        failed |= multiply_here(precision, weight, dy, nullptr, false, image + first * c.columns, c.places(), taps,
                                places, c.out);
      } else {
        failed |= multiply_here(precision, weight, dy, nullptr, false, matrix, places, taps, places, c.out);
        c.add(matrix, first, last, image);
      }
    }
  }
  return failed;
}

// Each thread takes some images; their sums are added up in their order.
static int convolve_weight_grad(Precision precision, const Tensors& t) {  // images; weight, whose shape counts; dy
  Convolution c;
  if (!c.of(t, 4, 0, 1, 2) || !t.fit(3, {{c.groups * c.out, c.in, c.kernel, c.kernel}})) return MISSHAPEN;
  const int64_t taps = c.taps(), size = c.groups * c.weights(), threads = omp_get_max_threads();
  const int64_t parts = c.batch < threads ? c.batch : threads;
  Scratch sums(parts * size);
  float* others = sums.take(parts * size);
  int failed = DONE;
  memset(t[3], 0, 4 * size);
#pragma omp parallel for schedule(static, 1) reduction(| : failed)
  for (int64_t part = 0; part < parts; part++) {
    Scratch scratch(taps * c.step * c.columns);
    float *memory = scratch.take(taps * c.step * c.columns), *sum = part ? others + part * size : t[3];
    if (part) memset(sum, 0, 4 * size);
    for (int64_t b = c.batch * part / parts; b < c.batch * (part + 1) / parts; b++)
      for (int64_t g = 0; g < c.groups; g++)
        for (int64_t first = 0; first < c.rows; first += c.step) {
          const int64_t last = c.end(first);
          const Factor dy{t[2] + c.output(b, g, first), c.places(), false};
          const Factor seen = c.seen(t[0] + c.input(b, g), first, last, memory);
          failed |= multiply_here(precision, dy, {seen.data, seen.step, true}, nullptr, true, sum + g * c.weights(),
                                  taps, c.out, taps, (last - first) * c.columns);
        }
  }
#pragma omp parallel for schedule(static) if (size > WORTH_THREADS)
  for (int64_t i = 0; i < size; i++)
    for (int64_t part = 1; part < parts; part++) t[3][i] += others[part * size + i];
  return failed;
}

// MindSpore takes operators of one name and the same inputs for one, whose output has one size.
OPERATOR(convolution_1) { return convolve(FLOAT32, t); }
OPERATOR(convolution_2) { return convolve(FLOAT32, t); }
OPERATOR(convolution_grad) { return convolve_grad(FLOAT32, t); }
OPERATOR(convolution_weight_grad) { return convolve_weight_grad(FLOAT32, t); }
OPERATOR(bfloat16_convolution_1) { return convolve(BFLOAT16, t); }
OPERATOR(bfloat16_convolution_2) { return convolve(BFLOAT16, t); }
OPERATOR(bfloat16_convolution_grad) { return convolve_grad(BFLOAT16, t); }
OPERATOR(bfloat16_convolution_weight_grad) { return convolve_weight_grad(BFLOAT16, t); }
