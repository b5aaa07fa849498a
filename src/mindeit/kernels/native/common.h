// What the operators share. They are fused float32 operators for MindSpore's CPU back end, called through ops.Custom;
// operators.py says what each takes.
//
// Written with the vector extensions of GCC and Clang, so that one source serves AVX2, AVX-512 and NEON. Sums over rows
// are taken over a fixed number of chunks, so no result depends on the number of threads but products by oneDNN, and
// what is made of them.

#pragma once

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <new>
#include <omp.h>

#define INLINE static inline __attribute__((always_inline))

#ifdef __AVX512F__
constexpr int64_t W = 16;  // floats in a vector
#else
constexpr int64_t W = 8;
#endif
constexpr int64_t CHUNKS = 16;              // of rows, each summed by itself
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
    return count == (int)wanted.size() && fit(0, wanted);
  }
  // Whether those from the i-th on are so.
  bool fit(int i, std::initializer_list<std::initializer_list<int64_t>> wanted) const {
    if (count < i + (int)wanted.size()) return false;
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

struct Piece {  // of memory
  float* memory = nullptr;
  size_t bytes = 0;

  float* at_least(size_t wanted) {
    if (wanted <= bytes) return memory;
    free(memory);
    bytes = 0;
    memory = (float*)aligned_alloc(64, wanted);
    if (!memory) throw std::bad_alloc();
    bytes = wanted;
    return memory;
  }
  ~Piece() { free(memory); }
};

// Memory for as long as it is in scope, the last taken given back first. Each thread keeps it for the next time: a C
// library gives large pieces back to the system, which clears them anew at each call.
class Scratch {
 public:
  explicit Scratch(size_t floats) : memory(piece().at_least((floats * 4 + 63) / 64 * 64)) { depth++; }
  ~Scratch() { depth--; }
  Scratch(const Scratch&) = delete;
  float* take(int64_t floats) {
    float* part = memory + used;
    used += (floats + 15) / 16 * 16;
    return part;
  }

 private:
  static constexpr int MOST = 8;  // in scope at a time
  static Piece& piece() {
    if (depth == MOST) throw std::bad_alloc();
    return pieces[depth];
  }
  static inline thread_local Piece pieces[MOST];
  static inline thread_local int depth = 0;
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

// -------------------------------------------------------------------------- what an operator of a whole block consists of

// Rows (n, width) everywhere. A result may take the place of the first rows, and a gradient that of dy.
void normalise(const float* x, const float* gamma, const float* beta, float epsilon, float* y, int64_t n, int64_t width);
void normalise_grad(const float* x, const float* gamma, const float* dy, float epsilon, float* dx, float* dgamma_dbeta,
                    int64_t n, int64_t width);
void gelu(const float* x, const float* bias, float* y, int64_t n, int64_t width);
void gelu_grad(const float* x, const float* bias, const float* dy, float* dx, float* dbias, int64_t n, int64_t width);
void sum_columns(const float* x, float* sums, int64_t n, int64_t width);
// Rows first..last of x + branch * gain * factors, a factor for each n of them.
void add_branch(const float* x, const float* branch, const float* gain, const float* factors, float* y, int64_t first,
                int64_t last, int64_t n, int64_t width);

// What products round their factors to. They are summed in float32.
enum Precision { FLOAT32, BFLOAT16 };

// Tokens first..last of the images in qkv (images, n, 3, heads, d), to which a bias is added -> those in mixed
// (images, n, heads, d).
void attend(Precision precision, const float* qkv, const float* bias, float* mixed, int64_t n, int64_t heads, int64_t d,
            int64_t first, int64_t last);
void attend_grad(Precision precision, const float* qkv, const float* bias, const float* dmixed, float* dqkv,
                 float* dbias, int64_t images, int64_t n, int64_t heads, int64_t d);

// x (n, in), weight (out, in) and a bias (out,) or none -> y (n, out). Not DONE: there is no oneDNN.
int multiply(Precision precision, const float* x, const float* weight, const float* bias, float* y, int64_t n,
             int64_t in, int64_t out);
int multiply_rows_grad(Precision precision, const float* dy, const float* weight, float* dx, int64_t n, int64_t in,
                       int64_t out);
int multiply_weight_grad(Precision precision, const float* dy, const float* x, float* dweight, int64_t n, int64_t in,
                         int64_t out, bool add);

struct Factor {
  const float* data;
  int64_t step;     // from row to row, as it is stored
  bool transposed;  // so it is stored

  const float* row(int64_t i) const { return data + i * (transposed ? 1 : step); }
  const float* column(int64_t j) const { return data + j * (transposed ? step : 1); }
};

// c (m, n), whose rows are a step apart, = a (m, k) b (k, n), plus a bias (n,), or added to what c holds. By the thread
// that asks.
int multiply_here(Precision precision, Factor a, Factor b, const float* bias, bool add, float* c, int64_t step,
                  int64_t m, int64_t n, int64_t k);
// The same in bfloat16.
void amx_multiply(Factor a, Factor b, const float* bias, bool add, float* c, int64_t step, int64_t m, int64_t n,
                  int64_t k);
bool amx_ready();  // whether this CPU and system have it
