// Attention and its gradient, and the small matrix products that they consist of.

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

// Of qkv (batch, n, 3, heads, d), to which a bias (3, heads, d) is added first. Query, key and value of a head (`which`
// is 0, 1 or 2) are n rows, `row` floats apart.
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
      : Attention(precision, t[0], t[1], t.size(0, 0), t.size(0, 1), t.size(0, 3), t.size(0, 4)) {}

  int64_t start(int64_t b, int64_t h, int64_t which) const { return b * n * row + (which * heads + h) * d; }

  int64_t offset(int64_t h, int64_t which) const { return (which * heads + h) * d; }

  // A head's rows from the i-th on, m of them, times a factor -> rows (m, padded_d), zero in the padding.
  void gather(int64_t b, int64_t h, int64_t which, int64_t i, int64_t m, float factor, float* rows) const {
    const float *from = qkv + start(b, h, which) + i * row, *added = bias + offset(h, which);
    for (int64_t r = 0; r < m; r++) {
      const float* ahead = from + (r + AHEAD) * row;  // rows lie far apart: the processor does not foresee them
      for (int64_t k = 0; k < d; k += 16) __builtin_prefetch(ahead + k);
      along(d, [&](int64_t k, int64_t count) {
        store(rows + r * padded_d + k, (load(from + r * row + k, count) + load(added + k, count)) * factor);
      });
    }
  }
  // Rows (n, padded_d) as the columns of a factor; without AMX put into memory (d, padded_n), zero in the padding.
  Factor columns(const float* rows, float* memory) const {
    if (amx) return {rows, padded_d, true};
    transpose(rows, memory);
    return {memory, padded_n, false};
  }
  void transpose(const float* rows, float* columns) const {
    for (int64_t first = 0; first < padded_n; first += W)
      for (int64_t k = 0; k < d; k++)
        for (int64_t j = first; j < first + W; j++) columns[k * padded_n + j] = j < n ? rows[j * padded_d + k] : 0.f;
  }
  // Rows (m, padded_d) times a factor -> a head's rows, `to_row` floats apart; adds them up in sums (d).
  void scatter(const float* rows, int64_t m, float factor, float* to, int64_t to_row, float* sums) const {
    for (int64_t r = 0; r < m; r++) {
      for (int64_t k = 0; k < d; k += 16) __builtin_prefetch(to + (r + AHEAD) * to_row + k, 1);
      along(d, [&](int64_t k, int64_t count) {
        const Vector v = load(rows + r * padded_d + k, count) * factor;
        store(to + r * to_row + k, v, count);
        store(sums + k, load(sums + k, count) + v, count);
      });
    }
  }
};

// Queries first..last of one head.
static void attend(const Attention& a, int64_t b, int64_t h, int64_t first, int64_t last, float* out) {
  const int64_t dim = a.heads * a.d;
  Scratch scratch(a.d * a.padded_n + 2 * a.n * a.padded_d + a.block * (a.padded_n + 2 * a.padded_d) + 128);
  float *keys = scratch.take(a.n * a.padded_d), *values = scratch.take(a.n * a.padded_d);
  float *scores = scratch.take(a.block * a.padded_n), *queries = scratch.take(a.block * a.padded_d);
  float* mixed = scratch.take(a.block * a.padded_d);
  a.gather(b, h, 1, 0, a.n, 1.f, keys);
  a.gather(b, h, 2, 0, a.n, 1.f, values);
  const Factor key_columns = a.columns(keys, scratch.take(a.d * a.padded_n));
  for (int64_t i = first; i < last; i += a.block) {
    const int64_t m = last - i < a.block ? last - i : a.block;
    a.gather(b, h, 0, i, m, a.scale, queries);
    product(a.amx, {queries, a.padded_d, false}, key_columns, scores, a.padded_n, m, a.n, a.d);
    softmax(scores, m, a.n);
    product(a.amx, {scores, a.padded_n, false}, {values, a.padded_d, false}, mixed, a.padded_d, m, a.d, a.n);
    for (int64_t r = 0; r < m; r++) {
      float* to = out + (b * a.n + i + r) * dim + h * a.d;
      for (int64_t k = 0; k < a.d; k += 16) __builtin_prefetch(to + AHEAD * dim + k, 1);
      memcpy(to, mixed + r * a.padded_d, 4 * a.d);
    }
  }
}

void attend(Precision precision, const float* qkv, const float* bias, float* mixed, int64_t n, int64_t heads, int64_t d,
            int64_t first, int64_t last) {
  const Attention a(precision, qkv, bias, last / n + 1, n, heads, d);
  for (int64_t b = first / n; b * n < last; b++)
    for (int64_t h = 0; h < heads; h++)
      attend(a, b, h, b * n < first ? first - b * n : 0, (b + 1) * n < last ? n : last - b * n, mixed);
}

static int attend(const Attention& a, const Tensors& t) {
  if (!t.are({{a.batch, a.n, 3, a.heads, a.d}, {3, a.heads, a.d}, {a.batch, a.n, a.heads * a.d}}) || !a.n)
    return MISSHAPEN;
  const int64_t blocks = (a.n + BLOCK - 1) / BLOCK, parts = a.batch * a.heads < 4 * omp_get_max_threads() ? blocks : 1;
#pragma omp parallel for collapse(3) schedule(dynamic)
  for (int64_t b = 0; b < a.batch; b++)
    for (int64_t h = 0; h < a.heads; h++)
      for (int64_t part = 0; part < parts; part++)
        attend(a, b, h, part * a.n / parts, (part + 1) * a.n / parts, t[2]);
  return DONE;
}

OPERATOR(attention) { return attend(Attention(t, FLOAT32), t); }
OPERATOR(bfloat16_attention) { return attend(Attention(t, BFLOAT16), t); }

// The probabilities are computed again. With P of them, G of the output and T = G V^T: dS = P (T - sum(P T)).
static void attend_grad(const Attention& a, const float* grad, float* dqkv, float* dtotal) {
  const int64_t dim = a.heads * a.d, size = a.n * a.padded_d, biases = 3 * dim;
  Scratch of_images(a.batch * biases);
  float* sums = of_images.take(a.batch * biases);  // of each image's own dqkv
  memset(sums, 0, 4 * a.batch * biases);
#pragma omp parallel for collapse(2) schedule(dynamic)
  for (int64_t b = 0; b < a.batch; b++)
    for (int64_t h = 0; h < a.heads; h++) {
      Scratch scratch(2 * a.d * a.padded_n + 4 * size + a.block * (2 * a.padded_n + 3 * a.padded_d) + 256);
      float *keys = scratch.take(size), *values = scratch.take(size);
      float *dkeys = scratch.take(size), *dvalues = scratch.take(size);
      float *shares = scratch.take(a.block * a.padded_n), *dscores = scratch.take(a.block * a.padded_n);
      float *queries = scratch.take(a.block * a.padded_d), *dout = scratch.take(a.block * a.padded_d);
      float *dqueries = scratch.take(a.block * a.padded_d), *dbias = sums + b * biases;
      a.gather(b, h, 1, 0, a.n, 1.f, keys);
      a.gather(b, h, 2, 0, a.n, 1.f, values);
      const Factor key_columns = a.columns(keys, scratch.take(a.d * a.padded_n));
      const Factor value_columns = a.columns(values, scratch.take(a.d * a.padded_n));
      memset(dkeys, 0, 4 * size);
      memset(dvalues, 0, 4 * size);
      for (int64_t i = 0; i < a.n; i += a.block) {
        const int64_t m = a.n - i < a.block ? a.n - i : a.block;
        a.gather(b, h, 0, i, m, a.scale, queries);
        for (int64_t r = 0; r < m; r++) {
          const float* from = grad + (b * a.n + i + r) * dim + h * a.d;
          for (int64_t k = 0; k < a.d; k += 16) __builtin_prefetch(from + AHEAD * dim + k);
          along(a.d, [&](int64_t k, int64_t count) { store(dout + r * a.padded_d + k, load(from + k, count)); });
        }
        product(a.amx, {queries, a.padded_d, false}, key_columns, shares, a.padded_n, m, a.n, a.d);
        softmax(shares, m, a.n);
        product(a.amx, {dout, a.padded_d, false}, value_columns, dscores, a.padded_n, m, a.n, a.d);
        for (int64_t r = 0; r < m; r++) {
          float *p = shares + r * a.padded_n, *s = dscores + r * a.padded_n;
          Vector total{};
          along(a.n, [&](int64_t j, int64_t count) { total += load(p + j, count) * load(s + j, count); });
          const float mean = sum(total);
          for (int64_t j = 0; j < a.padded_n; j += W) store(s + j, load(p + j) * (load(s + j) - mean));
        }
        const Factor by_queries{dscores, a.padded_n, false}, by_keys{dscores, a.padded_n, true};
        product(a.amx, by_queries, {keys, a.padded_d, false}, dqueries, a.padded_d, m, a.d, a.n);
        a.scatter(dqueries, m, a.scale, dqkv + a.start(b, h, 0) + i * a.row, a.row, dbias + a.offset(h, 0));
        product<true>(a.amx, {shares, a.padded_n, true}, {dout, a.padded_d, false}, dvalues, a.padded_d, a.n, a.d,
                      m);
        product<true>(a.amx, by_keys, {queries, a.padded_d, false}, dkeys, a.padded_d, a.n, a.d, m);
      }
      a.scatter(dkeys, a.n, 1.f, dqkv + a.start(b, h, 1), a.row, dbias + a.offset(h, 1));
      a.scatter(dvalues, a.n, 1.f, dqkv + a.start(b, h, 2), a.row, dbias + a.offset(h, 2));
    }
  memset(dtotal, 0, 4 * biases);
  for (int64_t b = 0; b < a.batch; b++)
    for (int64_t k = 0; k < biases; k++) dtotal[k] += sums[b * biases + k];
}

void attend_grad(Precision precision, const float* qkv, const float* bias, const float* dmixed, float* dqkv,
                 float* dbias, int64_t images, int64_t n, int64_t heads, int64_t d) {
  attend_grad(Attention(precision, qkv, bias, images, n, heads, d), dmixed, dqkv, dbias);
}

static int attend_grad(const Attention& a, const Tensors& t) {
  if (!t.are({{a.batch, a.n, 3, a.heads, a.d}, {3, a.heads, a.d}, {a.batch, a.n, a.heads * a.d},
              {a.batch, a.n, 3, a.heads, a.d}, {3, a.heads, a.d}}) || !a.n)
    return MISSHAPEN;
  attend_grad(a, t[2], t[3], t[4]);
  return DONE;
}

OPERATOR(attention_grad) { return attend_grad(Attention(t, FLOAT32), t); }
OPERATOR(bfloat16_attention_grad) { return attend_grad(Attention(t, BFLOAT16), t); }
