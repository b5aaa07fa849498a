// Operators on rows (n, width) and on tokens (batch, n, width).

#include "common.h"

// -------------------------------------------------------------------------------------------------------- bias, GELU

void gelu(const float* x, const float* bias, float* y, int64_t n, int64_t width) {
#pragma omp parallel for schedule(static) if (n * width > WORTH_THREADS)
  for (int64_t i = 0; i < n; i++)
    along(width, [&](int64_t j, int64_t count) {
      const Vector sum = load(x + i * width + j, count) + load(bias + j, count);
      store(y + i * width + j, sum * normal_distribution(sum), count);
    });
}

OPERATOR(bias_gelu) {
  const int64_t n = t.size(0, 0), width = t.size(0, 1);
  if (!t.are({{n, width}, {width}, {n, width}})) return MISSHAPEN;
  gelu(t[0], t[1], t[2], n, width);
  return DONE;
}

void gelu_grad(const float* x, const float* bias, const float* dy, float* dx, float* dbias, int64_t n, int64_t width) {
  sum_rows(n, width, dbias, [&](int64_t first, int64_t last, float* sums) {
    for (int64_t i = first; i < last; i++)
      along(width, [&](int64_t j, int64_t count) {
        const Vector sum = load(x + i * width + j, count) + load(bias + j, count);
        const Vector slope = normal_distribution(sum) + sum * normal_density(sum);
        const Vector dsum = load(dy + i * width + j, count) * slope;
        store(dx + i * width + j, dsum, count);
        store(sums + j, load(sums + j, count) + dsum, count);
      });
  });
}

OPERATOR(bias_gelu_grad) {
  const int64_t n = t.size(0, 0), width = t.size(0, 1);
  if (!t.are({{n, width}, {width}, {n, width}, {n, width}, {width}})) return MISSHAPEN;
  gelu_grad(t[0], t[1], t[2], t[3], t[4], n, width);
  return DONE;
}

void sum_columns(const float* x, float* sums, int64_t n, int64_t width) {
  sum_rows(n, width, sums, [&](int64_t first, int64_t last, float* part) {
    for (int64_t i = first; i < last; i++)
      along(width, [&](int64_t j, int64_t count) {
        store(part + j, load(part + j, count) + load(x + i * width + j, count), count);
      });
  });
}

OPERATOR(column_sums) {
  const int64_t n = t.size(0, 0), width = t.size(0, 1);
  if (!t.are({{n, width}, {width}})) return MISSHAPEN;
  sum_columns(t[0], t[1], n, width);
  return DONE;
}

// ---------------------------------------------------------------------------------------------------------- residual

void add_branch(const float* x, const float* branch, const float* gain, const float* factors, float* y, int64_t first,
                int64_t last, int64_t n, int64_t width) {
#pragma omp parallel for schedule(static) if ((last - first) * width > WORTH_THREADS)
  for (int64_t i = first; i < last; i++) {
    const float factor = factors[i / n];
    along(width, [&](int64_t j, int64_t count) {
      const Vector scaled = load(branch + i * width + j, count) * load(gain + j, count) * factor;
      store(y + i * width + j, load(x + i * width + j, count) + scaled, count);
    });
  }
}

// A gain for each channel and a factor for each image.
OPERATOR(residual) {
  const int64_t batch = t.size(0, 0), tokens = t.size(0, 1), width = t.size(0, 2);
  if (!t.are({{batch, tokens, width}, {batch, tokens, width}, {width}, {batch}, {batch, tokens, width}}))
    return MISSHAPEN;
  add_branch(t[0], t[1], t[2], t[3], t[4], 0, batch * tokens, tokens, width);
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

void normalise(const float* x, const float* gamma, const float* beta, float epsilon, float* y, int64_t n, int64_t width) {
#pragma omp parallel for schedule(static) if (n * width > WORTH_THREADS)
  for (int64_t i = 0; i < n; i++) {
    const float* row = x + i * width;
    const Moments m = moments(row, width, epsilon);
    along(width, [&](int64_t j, int64_t count) {
      const Vector hat = (load(row + j, count) - m.mean) * m.inverse;
      store(y + i * width + j, hat * load(gamma + j, count) + load(beta + j, count), count);
    });
  }
}

OPERATOR(layer_norm) {
  const int64_t n = t.size(0, 0), width = t.size(0, 1);
  if (!t.are({{n, width}, {width}, {width}, {1}, {n, width}})) return MISSHAPEN;
  normalise(t[0], t[1], t[2], t[3][0], t[4], n, width);
  return DONE;
}

// With r = 1 / sqrt(variance + epsilon), hat = (x - mean) r and u = gamma dy: dx = r (u - mean(u) - hat mean(u hat)).
void normalise_grad(const float* x, const float* gamma, const float* dy, float epsilon, float* dx, float* dgamma_dbeta,
                    int64_t n, int64_t width) {
  sum_rows(n, 2 * width, dgamma_dbeta, [&](int64_t first, int64_t last, float* dgamma) {
    float* dbeta = dgamma + width;
    for (int64_t i = first; i < last; i++) {
      const float *row = x + i * width, *drow = dy + i * width;
      const Moments m = moments(row, width, epsilon);
      Vector total{}, along_hat{};
      along(width, [&](int64_t j, int64_t count) {
        const Vector g = load(drow + j, count), hat = (load(row + j, count) - m.mean) * m.inverse;
        const Vector u = g * load(gamma + j, count);
        store(dgamma + j, load(dgamma + j, count) + g * hat, count);
        store(dbeta + j, load(dbeta + j, count) + g, count);
        total += u;
        along_hat += u * hat;
      });
      const float mean = sum(total) / width, slope = sum(along_hat) / width;
      along(width, [&](int64_t j, int64_t count) {
        const Vector hat = (load(row + j, count) - m.mean) * m.inverse;
        const Vector u = load(drow + j, count) * load(gamma + j, count);
        store(dx + i * width + j, m.inverse * (u - mean - hat * slope), count);
      });
    }
  });
}

OPERATOR(layer_norm_grad) {
  const int64_t n = t.size(0, 0), width = t.size(0, 1);
  if (!t.are({{n, width}, {width}, {n, width}, {1}, {n, width}, {2, width}})) return MISSHAPEN;
  normalise_grad(t[0], t[1], t[2], t[3][0], t[4], t[5], n, width);
  return DONE;
}
