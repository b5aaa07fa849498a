// A 3x3 convolution of each channel for itself on a square of places, channels last, and what squeezes and excites them.

#include "common.h"

// The places around one of a side x side square, itself among them: where each is, and by which of the nine weights it
// counts. Seen from there, this place has weight 8 - tap.
struct Neighbours {
  int count = 0;
  int64_t places[9], taps[9];

  Neighbours(int64_t side, int64_t place) {
    const int64_t row = place / side, column = place % side;
    for (int64_t tap = 0; tap < 9; tap++) {
      const int64_t i = row + tap / 3 - 1, j = column + tap % 3 - 1;
      if (i < 0 || j < 0 || i >= side || j >= side) continue;
      places[count] = i * side + j;
      taps[count++] = tap;
    }
  }
};

// (width, 9) -> (9, width)
static void taps_first(const float* weight, int64_t width, float* to) {
  for (int64_t j = 0; j < width; j++)
    for (int64_t tap = 0; tap < 9; tap++) to[tap * width + j] = weight[j * 9 + tap];
}

// The bias plus weighted neighbours, of some channels.
INLINE Vector seen(const Neighbours& near, const float* image, const float* weight, const float* bias, int64_t width,
                   int64_t count) {
  Vector total = load(bias, count);
  for (int k = 0; k < near.count; k++)
    total += load(image + near.places[k] * width, count) * load(weight + near.taps[k] * width, count);
  return total;
}

static bool is_square(int64_t n, int64_t* side) {
  *side = llround(sqrt((double)n));
  return *side * *side == n;
}

OPERATOR(depthwise_gelu) {
  const int64_t batch = t.size(0, 0), n = t.size(0, 1), width = t.size(0, 2);
  int64_t side;
  if (!t.are({{batch, n, width}, {width, 1, 3, 3}, {width}, {batch, n, width}}) || !is_square(n, &side))
    return MISSHAPEN;
  Scratch scratch(9 * width);
  float* weight = scratch.take(9 * width);
  taps_first(t[1], width, weight);
#pragma omp parallel for schedule(static) if (batch * n * width > WORTH_THREADS)
  for (int64_t i = 0; i < batch * n; i++) {
    const Neighbours near(side, i % n);
    const float* image = t[0] + i / n * n * width;
    along(width, [&](int64_t j, int64_t count) {
      const Vector x = seen(near, image + j, weight + j, t[2] + j, width, count);
      store(t[3] + i * width + j, x * normal_distribution(x), count);
    });
  }
  return DONE;
}

// What the convolution yields is computed again. Sums are taken image by image.
OPERATOR(depthwise_gelu_grad) {
  const int64_t batch = t.size(0, 0), n = t.size(0, 1), width = t.size(0, 2), sums = 10 * width;
  int64_t side;
  if (!t.are({{batch, n, width}, {width, 1, 3, 3}, {width}, {batch, n, width}, {batch, n, width}, {width, 1, 3, 3},
              {width}}) || !is_square(n, &side))
    return MISSHAPEN;
  Scratch scratch(9 * width + (batch + 1) * sums + 32);
  float *weight = scratch.take(9 * width), *of_images = scratch.take(batch * sums), *total = scratch.take(sums);
  taps_first(t[1], width, weight);
  memset(total, 0, 4 * sums);
  memset(of_images, 0, 4 * batch * sums);
#pragma omp parallel for schedule(static)
  for (int64_t b = 0; b < batch; b++) {
    Scratch inside(n * width);
    float *before = inside.take(n * width), *dweight = of_images + b * sums, *dbias = dweight + 9 * width;
    const float* image = t[0] + b * n * width;
    for (int64_t i = 0; i < n; i++) {
      const Neighbours near(side, i);
      along(width, [&](int64_t j, int64_t count) {
        const Vector x = seen(near, image + j, weight + j, t[2] + j, width, count);
        const Vector slope = normal_distribution(x) + x * normal_density(x);
        const Vector dx = load(t[3] + (b * n + i) * width + j, count) * slope;
        store(before + i * width + j, dx, count);
        store(dbias + j, load(dbias + j, count) + dx, count);
        for (int k = 0; k < near.count; k++) {
          float* sum = dweight + near.taps[k] * width + j;
          store(sum, load(sum, count) + dx * load(image + near.places[k] * width + j, count), count);
        }
      });
    }
    for (int64_t i = 0; i < n; i++) {
      const Neighbours near(side, i);
      along(width, [&](int64_t j, int64_t count) {
        Vector dx{};
        for (int k = 0; k < near.count; k++)
          dx += load(before + near.places[k] * width + j, count) * load(weight + (8 - near.taps[k]) * width + j, count);
        store(t[4] + (b * n + i) * width + j, dx, count);
      });
    }
  }
  for (int64_t b = 0; b < batch; b++)
    for (int64_t j = 0; j < sums; j++) total[j] += of_images[b * sums + j];
  for (int64_t j = 0; j < width; j++)
    for (int64_t tap = 0; tap < 9; tap++) t[5][j * 9 + tap] = total[tap * width + j];
  memcpy(t[6], total + 9 * width, 4 * width);
  return DONE;
}

// -------------------------------------------------------------------------------------------- squeezing and exciting

OPERATOR(token_mean) {
  const int64_t batch = t.size(0, 0), n = t.size(0, 1), width = t.size(0, 2);
  if (!t.are({{batch, n, width}, {batch, 1, width}}) || !n) return MISSHAPEN;
#pragma omp parallel for schedule(static) if (batch * n * width > WORTH_THREADS)
  for (int64_t b = 0; b < batch; b++)
    along(width, [&](int64_t j, int64_t count) {
      Vector total{};
      for (int64_t i = 0; i < n; i++) total += load(t[0] + (b * n + i) * width + j, count);
      store(t[1] + b * width + j, total / (float)n, count);
    });
  return DONE;
}

// Of the mean's gradient; the input is taken for its shape.
OPERATOR(token_mean_grad) {
  const int64_t batch = t.size(0, 0), n = t.size(0, 1), width = t.size(0, 2);
  if (!t.are({{batch, n, width}, {batch, 1, width}, {batch, n, width}})) return MISSHAPEN;
#pragma omp parallel for schedule(static) if (batch * n * width > WORTH_THREADS)
  for (int64_t i = 0; i < batch * n; i++)
    along(width, [&](int64_t j, int64_t count) {
      store(t[2] + i * width + j, load(t[1] + i / n * width + j, count) / (float)n, count);
    });
  return DONE;
}

OPERATOR(token_gain) {
  const int64_t batch = t.size(0, 0), n = t.size(0, 1), width = t.size(0, 2);
  if (!t.are({{batch, n, width}, {batch, 1, width}, {batch, n, width}})) return MISSHAPEN;
#pragma omp parallel for schedule(static) if (batch * n * width > WORTH_THREADS)
  for (int64_t i = 0; i < batch * n; i++)
    along(width, [&](int64_t j, int64_t count) {
      store(t[2] + i * width + j, load(t[0] + i * width + j, count) * load(t[1] + i / n * width + j, count), count);
    });
  return DONE;
}

OPERATOR(token_gain_grad) {
  const int64_t batch = t.size(0, 0), n = t.size(0, 1), width = t.size(0, 2);
  if (!t.are({{batch, n, width}, {batch, 1, width}, {batch, n, width}, {batch, n, width}, {batch, 1, width}}))
    return MISSHAPEN;
#pragma omp parallel for schedule(static) if (batch * n * width > WORTH_THREADS)
  for (int64_t b = 0; b < batch; b++)
    along(width, [&](int64_t j, int64_t count) {
      const Vector gain = load(t[1] + b * width + j, count);
      Vector dgain{};
      for (int64_t i = b * n; i < (b + 1) * n; i++) {
        const Vector dy = load(t[2] + i * width + j, count);
        store(t[3] + i * width + j, dy * gain, count);
        dgain += dy * load(t[0] + i * width + j, count);
      }
      store(t[4] + b * width + j, dgain, count);
    });
  return DONE;
}
