// Operators on rows (n, width) and on tokens (batch, n, width).

#include "common.h"

// -------------------------------------------------------------------------------------------------------- bias, GELU

OPERATOR(bias_gelu) {
  const int64_t n = t.size(0, 0), width = t.size(0, 1);
  if (!t.are({{n, width}, {width}, {n, width}})) return MISSHAPEN;
#pragma omp parallel for schedule(static) if (n * width > WORTH_THREADS)
  for (int64_t i = 0; i < n; i++)
    along(width, [&](int64_t j, int64_t count) {
      const Vector x = load(t[0] + i * width + j, count) + load(t[1] + j, count);
      store(t[2] + i * width + j, x * normal_distribution(x), count);
    });
  return DONE;
}

OPERATOR(bias_gelu_grad) {
  const int64_t n = t.size(0, 0), width = t.size(0, 1);
  if (!t.are({{n, width}, {width}, {n, width}, {n, width}, {width}})) return MISSHAPEN;
  sum_rows(n, width, t[4], [&](int64_t first, int64_t last, float* dbias) {
    for (int64_t i = first; i < last; i++)
      along(width, [&](int64_t j, int64_t count) {
        const Vector x = load(t[0] + i * width + j, count) + load(t[1] + j, count);
        const Vector slope = normal_distribution(x) + x * normal_density(x);
        const Vector dx = load(t[2] + i * width + j, count) * slope;
        store(t[3] + i * width + j, dx, count);
        store(dbias + j, load(dbias + j, count) + dx, count);
      });
  });
  return DONE;
}

OPERATOR(column_sums) {
  const int64_t n = t.size(0, 0), width = t.size(0, 1);
  if (!t.are({{n, width}, {width}})) return MISSHAPEN;
  sum_rows(n, width, t[1], [&](int64_t first, int64_t last, float* sums) {
    for (int64_t i = first; i < last; i++)
      along(width, [&](int64_t j, int64_t count) {
        store(sums + j, load(sums + j, count) + load(t[0] + i * width + j, count), count);
      });
  });
  return DONE;
}

// ---------------------------------------------------------------------------------------------------------- residual

// x + branch times a gain for each channel and a factor for each image.
OPERATOR(residual) {
  const int64_t batch = t.size(0, 0), tokens = t.size(0, 1), width = t.size(0, 2), n = batch * tokens;
  if (!t.are({{batch, tokens, width}, {batch, tokens, width}, {width}, {batch}, {batch, tokens, width}}))
    return MISSHAPEN;
#pragma omp parallel for schedule(static) if (n * width > WORTH_THREADS)
  for (int64_t i = 0; i < n; i++) {
    const float factor = t[3][i / tokens];
    along(width, [&](int64_t j, int64_t count) {
      const Vector branch = load(t[1] + i * width + j, count) * load(t[2] + j, count) * factor;
      store(t[4] + i * width + j, load(t[0] + i * width + j, count) + branch, count);
    });
  }
  return DONE;
}

OPERATOR(residual_grad) {
  const int64_t batch = t.size(0, 0), tokens = t.size(0, 1), width = t.size(0, 2);
  if (!t.are({{batch, tokens, width}, {width}, {batch}, {batch, tokens, width}, {batch, tokens, width}, {width}}))
    return MISSHAPEN;
  sum_rows(batch * tokens, width, t[5], [&](int64_t first, int64_t last, float* dgain) {
    for (int64_t i = first; i < last; i++) {
      const float factor = t[2][i / tokens];
      along(width, [&](int64_t j, int64_t count) {
        const Vector dy = load(t[3] + i * width + j, count) * factor;
        store(t[4] + i * width + j, dy * load(t[1] + j, count), count);
        store(dgain + j, load(dgain + j, count) + dy * load(t[0] + i * width + j, count), count);
      });
    }
  });
  return DONE;
}

// -------------------------------------------------------------------------------------------------------- layer norm

struct Moments {
  float mean, inverse;  // 1 / sqrt(variance + epsilon)
};

INLINE Moments moments(const float* x, int64_t width, float epsilon) {
  Vector total{}, squares{};
  along(width, [&](int64_t j, int64_t count) { total += load(x + j, count); });
  const float mean = sum(total) / width;
  const Vector middle = Vector{} + mean;
  along(width, [&](int64_t j, int64_t count) {
    const Vector away = load(x + j, count) - (count == W ? middle : load((const float*)&middle, count));
    squares += away * away;
  });
  return {mean, 1.f / sqrtf(sum(squares) / width + epsilon)};
}

OPERATOR(layer_norm) {
  const int64_t n = t.size(0, 0), width = t.size(0, 1);
  if (!t.are({{n, width}, {width}, {width}, {1}, {n, width}})) return MISSHAPEN;
#pragma omp parallel for schedule(static) if (n * width > WORTH_THREADS)
  for (int64_t i = 0; i < n; i++) {
    const float* x = t[0] + i * width;
    const Moments m = moments(x, width, t[3][0]);
    along(width, [&](int64_t j, int64_t count) {
      const Vector hat = (load(x + j, count) - m.mean) * m.inverse;
      store(t[4] + i * width + j, hat * load(t[1] + j, count) + load(t[2] + j, count), count);
    });
  }
  return DONE;
}

// With r = 1 / sqrt(variance + epsilon), hat = (x - mean) r and u = gamma dy: dx = r (u - mean(u) - hat mean(u hat)).
OPERATOR(layer_norm_grad) {
  const int64_t n = t.size(0, 0), width = t.size(0, 1);
  if (!t.are({{n, width}, {width}, {n, width}, {1}, {n, width}, {2, width}})) return MISSHAPEN;
  sum_rows(n, 2 * width, t[5], [&](int64_t first, int64_t last, float* dgamma) {
    float* dbeta = dgamma + width;
    for (int64_t i = first; i < last; i++) {
      const float *x = t[0] + i * width, *dy = t[2] + i * width;
      const Moments m = moments(x, width, t[3][0]);
      Vector total{}, along_hat{};
      along(width, [&](int64_t j, int64_t count) {
        const Vector g = load(dy + j, count), hat = (load(x + j, count) - m.mean) * m.inverse;
        const Vector u = g * load(t[1] + j, count);
        store(dgamma + j, load(dgamma + j, count) + g * hat, count);
        store(dbeta + j, load(dbeta + j, count) + g, count);
        total += u;
        along_hat += u * hat;
      });
      const float mean = sum(total) / width, slope = sum(along_hat) / width;
      along(width, [&](int64_t j, int64_t count) {
        const Vector hat = (load(x + j, count) - m.mean) * m.inverse;
        const Vector u = load(dy + j, count) * load(t[1] + j, count);
        store(t[4] + i * width + j, m.inverse * (u - mean - hat * slope), count);
      });
    }
  });
  return DONE;
}
