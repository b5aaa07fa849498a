// Fused float32 operators for MindSpore's CPU back end, called through ops.Custom. operators.py says what each takes.
//
// Written with the vector extensions of GCC and Clang, so that one source serves AVX2, AVX-512 and NEON. Sums over rows
// are taken over a fixed number of chunks, so no result depends on the number of threads (but for products in bfloat16,
// which oneDNN takes).

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <new>
#include <omp.h>

#define INLINE static inline __attribute__((always_inline))

#ifdef __AVX512F__
constexpr int64_t W = 16, COLUMNS = 4;  // floats in a vector; vectors in a row of a tile
#else
constexpr int64_t W = 8, COLUMNS = 2;
#endif
constexpr int64_t ROWS = 6;                 // of a tile: with its columns, what the registers hold
constexpr int64_t CHUNKS = 16;              // of rows, each summed by itself
constexpr int64_t BLOCK = 8 * ROWS;         // queries at a time: their scores stay in the first caches
constexpr int64_t AHEAD = 8;                // rows that are fetched before they are needed
constexpr int64_t WORTH_THREADS = 1 << 15;  // elements; below, waking another thread costs more than it saves

typedef float Vector __attribute__((vector_size(4 * W), aligned(4), may_alias));
typedef int32_t Integers __attribute__((vector_size(4 * W), aligned(4), may_alias));

// ---------------------------------------------------------------------------------------------- what an operator gets

struct Tensors {  // inputs, then outputs
  int count;
  void** data;
  int* dims;
  int64_t** shapes;
  const char** types;

  int64_t size(int i, int axis) const { return i < count && axis < dims[i] ? shapes[i][axis] : -1; }

  // Whether these are all the tensors there are, float32 and of these shapes.
  bool are(std::initializer_list<std::initializer_list<int64_t>> wanted) const {
    if (count != (int)wanted.size()) return false;
    int i = 0;
    for (auto& shape : wanted) {
      if (strcmp(types[i], "float32") || dims[i] != (int)shape.size()) return false;
      int axis = 0;
      for (int64_t size : shape)
        if (size < 0 || shapes[i][axis++] != size) return false;
      i++;
    }
    return true;
  }
  float* operator[](int i) const { return (float*)data[i]; }
};

#define OPERATOR(name)                                                                                          \
  static int name##_of(const Tensors& t);                                                                       \
  extern "C" int name(int count, void** data, int* dims, int64_t** shapes, const char** types, void*, void*) { \
    return name##_of({count, data, dims, shapes, types});                                                       \
  }                                                                                                             \
  static int name##_of(const Tensors& t)

constexpr int DONE = 0, MISSHAPEN = 1;  // any other tensors than float32 of the right shapes

// ------------------------------------------------------------------------------------------------- vectors and memory

INLINE Vector load(const float* a) { return *(const Vector*)a; }
INLINE void store(float* a, Vector v) { *(Vector*)a = v; }
INLINE Vector load(const float* a, int64_t count) {  // the first count floats, then zeros
  if (count == W) return load(a);
  Vector v{};
  memcpy(&v, a, 4 * count);
  return v;
}
INLINE void store(float* a, Vector v, int64_t count) {
  if (count == W) return store(a, v);
  memcpy(a, &v, 4 * count);
}
INLINE Vector larger(Vector a, Vector b) { return a < b ? b : a; }  // a NaN in a stays
INLINE Vector smaller(Vector a, Vector b) { return a > b ? b : a; }
INLINE float sum(Vector v) {
  float total = 0;
  for (int i = 0; i < W; i++) total += v[i];
  return total;
}
INLINE float largest(Vector v) {
  float most = v[0];
  for (int i = 1; i < W; i++) most = most < v[i] ? v[i] : most;
  return most;
}

// step(offset, count) for each vector of a row; only the last may have fewer than W.
template <class Step>
INLINE void along(int64_t width, Step step) {
  int64_t j = 0;
  for (; j + W <= width; j += W) step(j, W);
  if (j < width) step(j, width - j);
}

INLINE int64_t whole_vectors(int64_t n) { return (n + W - 1) / W * W; }

class Scratch {
 public:
  explicit Scratch(size_t floats) : memory((float*)aligned_alloc(64, (floats * 4 + 63) / 64 * 64)) {
    if (!memory) throw std::bad_alloc();
  }
  ~Scratch() { free(memory); }
  Scratch(const Scratch&) = delete;
  float* take(int64_t floats) {
    float* part = memory + used;
    used += (floats + 15) / 16 * 16;
    return part;
  }
  uint16_t* halves(int64_t count) { return (uint16_t*)take((count + 1) / 2); }

 private:
  float* memory;
  int64_t used = 0;
};

// ------------------------------------------------------------------------------------------------------- mathematics

INLINE Vector exponential(Vector x) {  // for x <= 80, within two units in the last place
  x = larger(x, Vector{} - 87.f);
  Vector shifted = x * 1.44269504f + 12582912.f;  // rounds x / ln 2; the low bits hold the integer n
  Integers exponent = (Integers)shifted << 23;
  Vector n = shifted - 12582912.f, r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  Vector y = r * 1.98756915e-4f + 1.39819995e-3f;
  y = ((y * r + 8.33345191e-3f) * r + 4.16657959e-2f) * r + 1.66666655e-1f;
  y = (y * r + 0.5f) * (r * r) + (r + 1.f);
  return (Vector)((Integers)y + exponent);
}

INLINE Vector normal_distribution(Vector x) {  // Phi = (1 + erf(x / sqrt 2)) / 2, erf as a quotient of polynomials
  Vector z = larger(smaller(x * 0.707106781f, Vector{} + 4.f), Vector{} - 4.f), s = z * z;
  Vector a = s * -2.72614225801306e-10f + 2.77068142495902e-08f;
  a = ((a * s - 2.10102402082508e-06f) * s - 5.69250639462346e-05f) * s - 7.34990630326855e-04f;
  a = (a * s - 2.95459980854025e-03f) * s - 1.60960333262415e-02f;
  Vector b = (s * -1.45660718464996e-05f - 2.13374055278905e-04f) * s - 1.68282697438203e-03f;
  b = (b * s - 7.37332916720468e-03f) * s - 1.42647390514189e-02f;
  return 0.5f + 0.5f * (z * a / b);
}
INLINE Vector normal_density(Vector x) { return 0.398942280f * exponential(x * x * -0.5f); }

// Runs rows(first, last, sums) for each chunk of n rows; sums (width) is the chunk's own. Adds the chunks up in their
// order into total.
template <class Rows>
static void sum_rows(int64_t n, int64_t width, float* total, Rows rows) {
  Scratch scratch(CHUNKS * width);
  float* sums = scratch.take(CHUNKS * width);
  memset(sums, 0, 4 * CHUNKS * width);
#pragma omp parallel for schedule(static) if (n * width > WORTH_THREADS)
  for (int64_t c = 0; c < CHUNKS; c++) rows(c * n / CHUNKS, (c + 1) * n / CHUNKS, sums + c * width);
  memcpy(total, sums, 4 * width);
  for (int64_t c = 1; c < CHUNKS; c++)
    for (int64_t j = 0; j < width; j++) total[j] += sums[c * width + j];
}

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
  int64_t batch, n, heads, d, row, padded_n, padded_d;
  float scale;
  const float *qkv, *bias;

  explicit Attention(const Tensors& t)
      : batch(t.size(0, 0)), n(t.size(0, 1)), heads(t.size(0, 3)), d(t.size(0, 4)), row(3 * heads * d),
        padded_n(whole_vectors(n)), padded_d(whole_vectors(d)), scale(1.f / sqrtf(d)), qkv(t[0]), bias(t[1]) {}

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
  // Rows (n, padded_d) -> columns (d, padded_n), zero in the padding.
  void transpose(const float* rows, float* columns) const {
    for (int64_t first = 0; first < padded_n; first += W)
      for (int64_t k = 0; k < d; k++)
        for (int64_t j = first; j < first + W; j++) columns[k * padded_n + j] = j < n ? rows[j * padded_d + k] : 0.f;
  }
  // Rows (m, padded_d) times a factor -> a head's rows, `to_row` floats apart; adds them up in sums (d).
  void scatter(const float* rows, int64_t m, float factor, float* to, int64_t to_row, float* sums) const {
    for (int64_t r = 0; r < m; r++)
      along(d, [&](int64_t k, int64_t count) {
        const Vector v = load(rows + r * padded_d + k, count) * factor;
        store(to + r * to_row + k, v, count);
        store(sums + k, load(sums + k, count) + v, count);
      });
  }
};

OPERATOR(attention) {
  const Attention a(t);
  const int64_t dim = a.heads * a.d;
  if (!t.are({{a.batch, a.n, 3, a.heads, a.d}, {3, a.heads, a.d}, {a.batch, a.n, dim}}) || !a.n) return MISSHAPEN;
  const int64_t blocks = (a.n + BLOCK - 1) / BLOCK, parts = a.batch * a.heads < 4 * omp_get_max_threads() ? blocks : 1;
#pragma omp parallel for collapse(3) schedule(dynamic)
  for (int64_t b = 0; b < a.batch; b++)
    for (int64_t h = 0; h < a.heads; h++)
      for (int64_t part = 0; part < parts; part++) {
        Scratch scratch(a.d * a.padded_n + a.n * a.padded_d + BLOCK * (a.padded_n + 2 * a.padded_d) + 128);
        float *keys = scratch.take(a.d * a.padded_n), *values = scratch.take(a.n * a.padded_d);
        float *scores = scratch.take(BLOCK * a.padded_n), *queries = scratch.take(BLOCK * a.padded_d);
        float* mixed = scratch.take(BLOCK * a.padded_d);
        a.gather(b, h, 1, 0, a.n, 1.f, values);
        a.transpose(values, keys);
        a.gather(b, h, 2, 0, a.n, 1.f, values);
        for (int64_t block = part * blocks / parts; block < (part + 1) * blocks / parts; block++) {
          const int64_t i = block * BLOCK, m = a.n - i < BLOCK ? a.n - i : BLOCK;
          a.gather(b, h, 0, i, m, a.scale, queries);
          product({queries, a.padded_d, 1}, keys, a.padded_n, scores, a.padded_n, m, a.padded_n, a.d);
          softmax(scores, m, a.n);
          product({scores, a.padded_n, 1}, values, a.padded_d, mixed, a.padded_d, m, a.padded_d, a.n);
          for (int64_t r = 0; r < m; r++)
            memcpy(t[2] + (b * a.n + i + r) * dim + h * a.d, mixed + r * a.padded_d, 4 * a.d);
        }
      }
  return DONE;
}

// The probabilities are computed again. With P of them, G of the output and T = G V^T: dS = P (T - sum(P T)).
OPERATOR(attention_grad) {
  const Attention a(t);
  const int64_t dim = a.heads * a.d, size = a.n * a.padded_d, biases = 3 * dim;
  if (!t.are({{a.batch, a.n, 3, a.heads, a.d}, {3, a.heads, a.d}, {a.batch, a.n, dim}, {a.batch, a.n, 3, a.heads, a.d},
              {3, a.heads, a.d}}) || !a.n)
    return MISSHAPEN;
  const float* grad = t[2];
  float* dqkv = t[3];
  Scratch of_images(a.batch * biases);
  float* sums = of_images.take(a.batch * biases);  // of each image's own dqkv
  memset(sums, 0, 4 * a.batch * biases);
#pragma omp parallel for collapse(2) schedule(dynamic)
  for (int64_t b = 0; b < a.batch; b++)
    for (int64_t h = 0; h < a.heads; h++) {
      Scratch scratch(2 * a.d * a.padded_n + 3 * size + BLOCK * (2 * a.padded_n + 3 * a.padded_d) + 256);
      float *keys = scratch.take(a.d * a.padded_n), *values = scratch.take(a.d * a.padded_n);
      float *key_rows = scratch.take(size), *dkeys = scratch.take(size), *dvalues = scratch.take(size);
      float *shares = scratch.take(BLOCK * a.padded_n), *dscores = scratch.take(BLOCK * a.padded_n);
      float *queries = scratch.take(BLOCK * a.padded_d), *dout = scratch.take(BLOCK * a.padded_d);
      float *dqueries = scratch.take(BLOCK * a.padded_d), *dbias = sums + b * biases;
      a.gather(b, h, 2, 0, a.n, 1.f, key_rows);
      a.transpose(key_rows, values);
      a.gather(b, h, 1, 0, a.n, 1.f, key_rows);
      a.transpose(key_rows, keys);
      memset(dkeys, 0, 4 * size);
      memset(dvalues, 0, 4 * size);
      for (int64_t i = 0; i < a.n; i += BLOCK) {
        const int64_t m = a.n - i < BLOCK ? a.n - i : BLOCK;
        a.gather(b, h, 0, i, m, a.scale, queries);
        for (int64_t r = 0; r < m; r++)
          along(a.d, [&](int64_t k, int64_t count) {
            store(dout + r * a.padded_d + k, load(grad + (b * a.n + i + r) * dim + h * a.d + k, count));
          });
        product({queries, a.padded_d, 1}, keys, a.padded_n, shares, a.padded_n, m, a.padded_n, a.d);
        softmax(shares, m, a.n);
        product({dout, a.padded_d, 1}, values, a.padded_n, dscores, a.padded_n, m, a.padded_n, a.d);
        for (int64_t r = 0; r < m; r++) {
          float *p = shares + r * a.padded_n, *s = dscores + r * a.padded_n;
          Vector total{};
          for (int64_t j = 0; j < a.padded_n; j += W) total += load(p + j) * load(s + j);
          const float mean = sum(total);
          for (int64_t j = 0; j < a.padded_n; j += W) store(s + j, load(p + j) * (load(s + j) - mean));
        }
        product({dscores, a.padded_n, 1}, key_rows, a.padded_d, dqueries, a.padded_d, m, a.padded_d, a.n);
        a.scatter(dqueries, m, a.scale, dqkv + a.start(b, h, 0) + i * a.row, a.row, dbias + a.offset(h, 0));
        product<true>({shares, 1, a.padded_n}, dout, a.padded_d, dvalues, a.padded_d, a.n, a.padded_d, m);
        product<true>({dscores, 1, a.padded_n}, queries, a.padded_d, dkeys, a.padded_d, a.n, a.padded_d, m);
      }
      a.scatter(dkeys, a.n, 1.f, dqkv + a.start(b, h, 1), a.row, dbias + a.offset(h, 1));
      a.scatter(dvalues, a.n, 1.f, dqkv + a.start(b, h, 2), a.row, dbias + a.offset(h, 2));
    }
  memset(t[4], 0, 4 * biases);
  for (int64_t b = 0; b < a.batch; b++)
    for (int64_t k = 0; k < biases; k++) t[4][k] += sums[b * biases + k];
  return DONE;
}

// ---------------------------------------------------------------------------------------------- products in bfloat16

// Floats are rounded to bfloat16 and multiplied; products are summed in float32. By oneDNN's plain C function, of
// matrices row by row: which one, Python says (bfloat16.py).
typedef uint16_t Bfloat16;
typedef int Gemm(char, char, int64_t m, int64_t n, int64_t k, float, const Bfloat16*, int64_t, const Bfloat16*, int64_t,
                 float, float*, int64_t);
static Gemm* gemm;
extern "C" void use_gemm(Gemm* function) { gemm = function; }

constexpr int NO_PRODUCT = 2;
constexpr int64_t LEAST_ROWS = 16;  // of a thread

static const Bfloat16* rounded(const float* from, int64_t count, Bfloat16* to) {
#pragma omp parallel for simd schedule(static) if (parallel : count > WORTH_THREADS)
  for (int64_t i = 0; i < count; i++) {
    uint32_t bits;
    memcpy(&bits, from + i, 4);
    const uint32_t nearest = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;  // half of them to even ones
    to[i] = (bits & 0x7fffffff) > 0x7f800000 ? bits >> 16 | 0x40 : nearest;  // a NaN stays one
  }
  return to;
}

struct Factor {
  const Bfloat16* data;
  int64_t step;  // from row to row, as it is stored
  char form;     // 'T': it is stored as its transpose
};

// c (m, n) = a (m, k) b (k, n). Each thread takes some rows of c.
static int multiply(Factor a, Factor b, float* c, int64_t m, int64_t n, int64_t k) {
  if (!gemm) return NO_PRODUCT;
  if (!m || !n) return DONE;
  const int64_t most = m / LEAST_ROWS + 1, threads = omp_get_max_threads(), parts = most < threads ? most : threads;
  int failed = 0;
#pragma omp parallel for schedule(static, 1) reduction(| : failed)
  for (int64_t part = 0; part < parts; part++) {
    const int64_t first = m * part / parts, rows = m * (part + 1) / parts - first;
    const Bfloat16* start = a.data + first * (a.form == 'T' ? 1 : a.step);
    failed |= gemm(a.form, b.form, rows, n, k, 1.f, start, a.step, b.data, b.step, 0.f, c + first * n, n);
  }
  return failed ? NO_PRODUCT : DONE;
}

OPERATOR(bfloat16_product) {
  const int64_t n = t.size(0, 0), in = t.size(0, 1), out = t.size(1, 0);
  if (!t.are({{n, in}, {out, in}, {n, out}})) return MISSHAPEN;
  Scratch scratch((n + out) * in / 2 + 64);
  const Bfloat16* x = rounded(t[0], n * in, scratch.halves(n * in));
  const Bfloat16* w = rounded(t[1], out * in, scratch.halves(out * in));
  return multiply({x, in, 'N'}, {w, in, 'T'}, t[2], n, out, in);
}

OPERATOR(bfloat16_product_grad) {
  const int64_t n = t.size(0, 0), in = t.size(0, 1), out = t.size(1, 0);
  if (!t.are({{n, in}, {out, in}, {n, out}, {n, in}, {out, in}})) return MISSHAPEN;
  Scratch scratch((n * in + out * in + n * out) / 2 + 96);
  const Bfloat16* x = rounded(t[0], n * in, scratch.halves(n * in));
  const Bfloat16* w = rounded(t[1], out * in, scratch.halves(out * in));
  const Bfloat16* dy = rounded(t[2], n * out, scratch.halves(n * out));
  const int ended = multiply({dy, out, 'N'}, {w, in, 'N'}, t[3], n, in, out);
  return ended ? ended : multiply({dy, out, 'T'}, {x, in, 'N'}, t[4], out, in, n);
}
