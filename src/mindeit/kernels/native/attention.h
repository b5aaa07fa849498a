// What attention consists of: small matrix products, the softmax of scores, and heads taken out of rows and put back.

#pragma once

#include "common.h"

constexpr int64_t COLUMNS = W == 16 ? 4 : 2;  // vectors in a row of a tile
constexpr int64_t ROWS = 6;                   // of a tile: with its columns, what the registers hold
constexpr int64_t BLOCK = 8 * ROWS;           // queries at a time: their scores stay in the first caches
constexpr int64_t AMX_BLOCK = 224;            // the same where AMX packs keys and values for each block
constexpr int64_t AHEAD = 8;                  // rows that are fetched before they are needed

// ---------------------------------------------------------------------------------------------------- small products

struct Matrix {  // element (i, j) at data[i * row + j * column]
  const float* data;
  int64_t row, column;
};

// c (R x C vectors) = a (R x k) times b (k x C vectors), or added to c.
template <int64_t R, int64_t C, bool ADD>
INLINE void tile(Matrix a, const float* b, int64_t b_row, float* c, int64_t c_row, int64_t k) {
  Vector s[R][C];
#pragma GCC unroll 8
  for (int64_t r = 0; r < R; r++)
#pragma GCC unroll 8
    for (int64_t v = 0; v < C; v++) s[r][v] = ADD ? load(c + r * c_row + v * W) : Vector{};
  for (int64_t i = 0; i < k; i++) {
    Vector x[C];
#pragma GCC unroll 8
    for (int64_t v = 0; v < C; v++) x[v] = load(b + i * b_row + v * W);
#pragma GCC unroll 8
    for (int64_t r = 0; r < R; r++) {
      const Vector y = Vector{} + a.data[r * a.row + i * a.column];
#pragma GCC unroll 8
      for (int64_t v = 0; v < C; v++) s[r][v] += y * x[v];
    }
  }
#pragma GCC unroll 8
  for (int64_t r = 0; r < R; r++)
#pragma GCC unroll 8
    for (int64_t v = 0; v < C; v++) store(c + r * c_row + v * W, s[r][v]);
}

template <int64_t R, bool ADD>
static __attribute__((noinline)) void tiles(Matrix a, const float* b, int64_t b_row, float* c, int64_t c_row, int64_t n,
                                            int64_t k) {
  int64_t j = 0;
  for (; j + COLUMNS * W <= n; j += COLUMNS * W) tile<R, COLUMNS, ADD>(a, b + j, b_row, c + j, c_row, k);
  for (; j + 2 * W <= n; j += 2 * W) tile<R, 2, ADD>(a, b + j, b_row, c + j, c_row, k);
  if (j < n) tile<R, 1, ADD>(a, b + j, b_row, c + j, c_row, k);
}

// c (m x n) = a (m x k) times b (k x n), or added to c; n a multiple of W.
template <bool ADD = false, int64_t R = ROWS>
static void product(Matrix a, const float* b, int64_t b_row, float* c, int64_t c_row, int64_t m, int64_t n, int64_t k) {
  for (; m >= R; m -= R, a.data += R * a.row, c += R * c_row) tiles<R, ADD>(a, b, b_row, c, c_row, n, k);
  if constexpr (R > 1)
    if (m) product<ADD, R - 1>(a, b, b_row, c, c_row, m, n, k);
}

// c (m, n), whose rows are a step apart, = a (m, k) b (k, n), or added to c. Without AMX in float32; b and c then hold
// whole vectors, and b is not transposed.
template <bool ADD = false>
static void product(bool amx, Factor a, Factor b, float* c, int64_t step, int64_t m, int64_t n, int64_t k) {
  if (amx) return amx_multiply(a, b, nullptr, ADD, c, step, m, n, k);
  const Matrix first{a.data, a.transposed ? 1 : a.step, a.transposed ? a.step : 1};
  product<ADD>(first, b.data, b.step, c, step, m, whole_vectors(n), k);
}

// --------------------------------------------------------------------------------------------------------- attention

// Scores (m rows of n, padded to a multiple of W) -> probabilities, zero in the padding.
static void softmax(float* scores, int64_t m, int64_t n) {
  const int64_t padded = whole_vectors(n);
  for (float* s = scores; s < scores + m * padded; s += padded) {
    for (int64_t j = n; j < padded; j++) s[j] = -INFINITY;
    Vector top = load(s), total{};
    for (int64_t j = W; j < padded; j += W) top = larger(top, load(s + j));
    const float most = largest(top);
    for (int64_t j = 0; j < padded; j += W) {
      const Vector e = exponential(load(s + j) - most);
      store(s + j, e);
      total += e;
    }
    for (int64_t j = n; j < padded; j++) s[j] = 0.f;
    const float share = 1.f / sum(total);  // the padding counts exp(-87): nothing
    for (int64_t j = 0; j < padded; j += W) store(s + j, load(s + j) * share);
  }
}

// The probabilities' gradient -> that of the scores, in its place.
static void softmax_grad(const float* shares, float* grads, int64_t m, int64_t n) {
  const int64_t padded = whole_vectors(n);
  for (int64_t r = 0; r < m; r++) {
    const float* p = shares + r * padded;
    float* g = grads + r * padded;
    Vector total{};
    along(n, [&](int64_t j, int64_t count) { total += load(p + j, count) * load(g + j, count); });
    const float mean = sum(total);
    for (int64_t j = 0; j < padded; j += W) store(g + j, load(p + j) * (load(g + j) - mean));
  }
}

// Of qkv (batch, n, 3, heads, d), to which a bias (3, heads, d) is added first, if there is one. Query, key and value of
// a head (`which` is 0, 1 or 2) are n rows, `row` floats apart.
struct Attention {
  bool amx;  // multiplies, in bfloat16
  int64_t batch, n, heads, d, row, padded_n, padded_d, block;
  float scale;
  const float *qkv, *bias;

  Attention(Precision precision, const float* qkv, const float* bias, int64_t batch, int64_t n, int64_t heads,
            int64_t d)
      : amx(precision == BFLOAT16 && amx_ready()), batch(batch), n(n), heads(heads), d(d), row(3 * heads * d),
        padded_n(whole_vectors(n)), padded_d(whole_vectors(d)), block(amx ? AMX_BLOCK : BLOCK), scale(1.f / sqrtf(d)),
        qkv(qkv), bias(bias) {}
  Attention(const Tensors& t, Precision precision)
      : Attention(precision, t[0], nullptr, t.size(0, 0), t.size(0, 1), t.size(0, 3), t.size(0, 4)) {}

  int64_t start(int64_t b, int64_t h, int64_t which) const { return b * n * row + (which * heads + h) * d; }

  int64_t offset(int64_t h, int64_t which) const { return (which * heads + h) * d; }

  // A head's rows from the i-th on, m of them, times a factor -> rows (m, padded_d), zero in the padding.
  void gather(int64_t b, int64_t h, int64_t which, int64_t i, int64_t m, float factor, float* rows) const {
    gather(qkv + start(b, h, which) + i * row, row, bias ? bias + offset(h, which) : nullptr, m, factor, rows);
  }
  // The same of any that are so far apart.
  void gather(const float* from, int64_t apart, const float* added, int64_t m, float factor, float* rows) const {
    for (int64_t r = 0; r < m; r++) {
      const float* ahead = from + (r + AHEAD) * apart;  // rows lie far apart: the processor does not foresee them
      for (int64_t k = 0; k < d; k += 16) __builtin_prefetch(ahead + k);
      along(d, [&](int64_t k, int64_t count) {
        const Vector v = load(from + r * apart + k, count);
        store(rows + r * padded_d + k, (added ? v + load(added + k, count) : v) * factor);
      });
    }
  }
  // Rows (n, padded_d) as the columns of a factor; without AMX put into memory (d, padded_n), zero in the padding.
  Factor columns(const float* rows, float* memory) const {
    if (!amx) transpose(rows, memory);
    return turned(rows, memory);
  }
  // The same, once they are there.
  Factor turned(const float* rows, const float* memory) const {
    return amx ? Factor{rows, padded_d, true} : Factor{memory, padded_n, false};
  }
  void transpose(const float* rows, float* columns) const {
    for (int64_t first = 0; first < padded_n; first += W)
      for (int64_t k = 0; k < d; k++)
        for (int64_t j = first; j < first + W; j++) columns[k * padded_n + j] = j < n ? rows[j * padded_d + k] : 0.f;
  }
  // Rows (m, padded_d) times a factor -> a head's rows, `to_row` floats apart; adds them up in sums (d), if wanted.
  void scatter(const float* rows, int64_t m, float factor, float* to, int64_t to_row, float* sums) const {
    for (int64_t r = 0; r < m; r++) {
      for (int64_t k = 0; k < d; k += 16) __builtin_prefetch(to + (r + AHEAD) * to_row + k, 1);
      along(d, [&](int64_t k, int64_t count) {
        const Vector v = load(rows + r * padded_d + k, count) * factor;
        store(to + r * to_row + k, v, count);
        if (sums) store(sums + k, load(sums + k, count) + v, count);
      });
    }
  }
};
