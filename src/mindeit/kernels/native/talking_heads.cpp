// Attention whose heads exchange scores before the softmax and probabilities after it, and its gradient.

#include "attention.h"

constexpr int64_t CACHED = 1 << 16;  // scores of all heads at a time
constexpr int64_t GROUP = 4;         // heads whose sums of products the registers hold

struct Exchange {  // of heads: a weight (heads, heads) and a bias (heads,), or their gradients
  float *weight, *bias;
};

// All keys or values of an image.
struct Image {
  const Attention& a;
  float *rows, *columns;

  static int64_t floats(const Attention& a) { return a.heads * (a.n * a.padded_d + a.d * a.padded_n) + 32; }

  Image(const Attention& a, Scratch& scratch)
      : a(a), rows(scratch.take(a.heads * a.n * a.padded_d)), columns(scratch.take(a.heads * a.d * a.padded_n)) {}

  void gather(int64_t b, int64_t which, bool turned) {
    for (int64_t h = 0; h < a.heads; h++) {
      a.gather(b, h, which, 0, a.n, 1.f, rows + h * a.n * a.padded_d);
      if (turned) a.columns(rows + h * a.n * a.padded_d, columns + h * a.d * a.padded_n);
    }
  }
  Factor by_rows(int64_t h) const { return {rows + h * a.n * a.padded_d, a.padded_d, false}; }
  Factor by_columns(int64_t h) const {
    return a.turned(rows + h * a.n * a.padded_d, columns + h * a.d * a.padded_n);
  }
};

struct TalkingHeads : Attention {
  Exchange before, after;  // the softmax

  TalkingHeads(const Tensors& t, Precision precision)
      : Attention(t, precision), before{t[1], t[2]}, after{t[3], t[4]} {
    const int64_t rows = CACHED / (heads * padded_n + 1) / ROWS * ROWS, fewest = amx ? 32 : 2 * ROWS;
    block = rows < fewest ? fewest : rows > BLOCK && !amx ? BLOCK : rows;
  }

  // Scores of queries i..i + m, (heads, m, padded_n), zero in the padding.
  void score(int64_t b, int64_t i, int64_t m, const Image& keys, float* queries, float* scores) const {
    for (int64_t h = 0; h < heads; h++) {
      float *rows = queries + h * m * padded_d, *to = scores + h * m * padded_n;
      gather(b, h, 0, i, m, scale, rows);
      multiply({rows, padded_d, false}, keys.by_columns(h), to, m);
    }
  }
  // (m, d) times (d, n) -> (m, padded_n), zero in the padding.
  void multiply(Factor rows, Factor columns, float* to, int64_t m) const {
    product(amx, rows, columns, to, padded_n, m, n, d);
    for (int64_t r = 0; r < m && amx; r++)
      for (int64_t j = n; j < padded_n; j++) to[r * padded_n + j] = 0.f;
  }
  // (heads, size) -> the same: each becomes a sum of all, and of a bias.
  void exchange(const Exchange& by, const float* from, float* to, int64_t size) const {
    for (int64_t h = 0; h < heads; h++)
      for (int64_t j = 0; j < size; j += W) store(to + h * size + j, Vector{} + by.bias[h]);
    product<true>({by.weight, heads, 1}, from, size, to, size, heads, size, heads);
  }
  void exchange_grad(const Exchange& by, const float* grads, float* to, int64_t size) const {
    product({by.weight, 1, heads}, grads, size, to, size, heads, size, heads);
  }
};

// Products of G heads' grads, rows of so many floats, with the inputs of all heads, summed up and added to weight.
template <int64_t G>
static void add_products(const float* grads, const float* inputs, int64_t heads, int64_t size, float* weight) {
  for (int64_t h = 0; h < heads; h++) {
    Vector totals[G]{};
    for (int64_t j = 0; j < size; j += W) {
      const Vector x = load(inputs + h * size + j);
#pragma GCC unroll 8
      for (int64_t g = 0; g < G; g++) totals[g] += x * load(grads + g * size + j);
    }
    for (int64_t g = 0; g < G; g++) weight[g * heads + h] += sum(totals[g]);
  }
}

static void add_products(const float* grads, const float* inputs, int64_t heads, int64_t size, float* weight) {
  int64_t g = 0;
  for (; g + GROUP <= heads; g += GROUP) add_products<GROUP>(grads + g * size, inputs, heads, size, weight + g * heads);
  for (; g < heads; g++) add_products<1>(grads + g * size, inputs, heads, size, weight + g * heads);
}

static void add_rows(const float* grads, int64_t heads, int64_t size, float* bias) {
  for (int64_t h = 0; h < heads; h++) {
    Vector total{};
    for (int64_t j = 0; j < size; j += W) total += load(grads + h * size + j);
    bias[h] += sum(total);
  }
}

// Queries first..last of an image.
static void attend(const TalkingHeads& a, int64_t b, int64_t first, int64_t last, float* out) {
  const int64_t dim = a.heads * a.d, most = a.heads * a.block;
  Scratch scratch(2 * Image::floats(a) + 2 * most * a.padded_n + (most + a.block) * a.padded_d + 64);
  Image keys(a, scratch), values(a, scratch);
  float *scores = scratch.take(most * a.padded_n), *shares = scratch.take(most * a.padded_n);
  float *queries = scratch.take(most * a.padded_d), *mixed = scratch.take(a.block * a.padded_d);
  keys.gather(b, 1, true);
  values.gather(b, 2, false);
  for (int64_t i = first; i < last; i += a.block) {
    const int64_t m = last - i < a.block ? last - i : a.block, size = m * a.padded_n;
    a.score(b, i, m, keys, queries, scores);
    a.exchange(a.before, scores, shares, size);
    softmax(shares, a.heads * m, a.n);
    a.exchange(a.after, shares, scores, size);
    for (int64_t h = 0; h < a.heads; h++) {
      product(a.amx, {scores + h * size, a.padded_n, false}, values.by_rows(h), mixed, a.padded_d, m, a.d, a.n);
      a.scatter(mixed, m, 1.f, out + (b * a.n + i) * dim + h * a.d, dim, nullptr);
    }
  }
}

// qkv, both exchanges, and mixed values or their gradient.
static bool fit(const Attention& a, const Tensors& t) {
  const int64_t heads = a.heads;
  return a.n && t.fit(0, {{a.batch, a.n, 3, heads, a.d}, {heads, heads}, {heads}, {heads, heads}, {heads},
                          {a.batch, a.n, heads * a.d}});
}

static int attend(const Tensors& t, Precision precision) {
  if (t.count != 6 || !fit(Attention(t, precision), t)) return MISSHAPEN;
  const TalkingHeads a(t, precision);
  const int64_t wanted = 2 * omp_get_max_threads(), blocks = (a.n + a.block - 1) / a.block;
  const int64_t enough = a.batch ? (wanted + a.batch - 1) / a.batch : 1;  // each part gathers all keys and values
  const int64_t parts = enough < blocks ? enough : blocks;
#pragma omp parallel for collapse(2) schedule(dynamic)
  for (int64_t b = 0; b < a.batch; b++)
    for (int64_t part = 0; part < parts; part++)
      attend(a, b, part * a.n / parts, (part + 1) * a.n / parts, t[5]);
  return DONE;
}

// An image. Scores and probabilities are computed again; with S and P of them, A = after(P) and G of the output:
// dA = G V^T, dP = after^T(dA), dL = P (dP - sum(P dP)), dS = before^T(dL). The first bias changes no probability.
static void attend_grad(const TalkingHeads& a, int64_t b, const float* grad, float* dqkv, float* dbefore,
                        const Exchange& dafter) {
  const int64_t dim = a.heads * a.d, most = a.heads * a.block, head = a.n * a.padded_d;
  Scratch scratch(2 * Image::floats(a) + 2 * a.heads * head + 4 * most * a.padded_n + 3 * most * a.padded_d + 160);
  Image keys(a, scratch), values(a, scratch);
  float *dkeys = scratch.take(a.heads * head), *dvalues = scratch.take(a.heads * head);
  float *scores = scratch.take(most * a.padded_n), *shares = scratch.take(most * a.padded_n);
  float *mixing = scratch.take(most * a.padded_n), *grads = scratch.take(most * a.padded_n);
  float *queries = scratch.take(most * a.padded_d), *dout = scratch.take(most * a.padded_d);
  float* dqueries = scratch.take(most * a.padded_d);
  keys.gather(b, 1, true);
  values.gather(b, 2, true);
  memset(dkeys, 0, 4 * a.heads * head);
  memset(dvalues, 0, 4 * a.heads * head);
  for (int64_t i = 0; i < a.n; i += a.block) {
    const int64_t m = a.n - i < a.block ? a.n - i : a.block, size = m * a.padded_n;
    a.score(b, i, m, keys, queries, scores);
    a.exchange(a.before, scores, shares, size);
    softmax(shares, a.heads * m, a.n);
    a.exchange(a.after, shares, mixing, size);
    for (int64_t h = 0; h < a.heads; h++) {
      const Factor by_keys{mixing + h * size, a.padded_n, true}, to{dout + h * m * a.padded_d, a.padded_d, false};
      a.gather(grad + (b * a.n + i) * dim + h * a.d, dim, nullptr, m, 1.f, dout + h * m * a.padded_d);
      product<true>(a.amx, by_keys, to, dvalues + h * head, a.padded_d, a.n, a.d, m);
      a.multiply(to, values.by_columns(h), grads + h * size, m);
    }
    add_products(grads, shares, a.heads, size, dafter.weight);
    add_rows(grads, a.heads, size, dafter.bias);
    a.exchange_grad(a.after, grads, mixing, size);
    softmax_grad(shares, mixing, a.heads * m, a.n);
    add_products(mixing, scores, a.heads, size, dbefore);
    a.exchange_grad(a.before, mixing, grads, size);
    for (int64_t h = 0; h < a.heads; h++) {
      const Factor by_queries{grads + h * size, a.padded_n, false}, by_keys{grads + h * size, a.padded_n, true};
      product(a.amx, by_queries, keys.by_rows(h), dqueries, a.padded_d, m, a.d, a.n);
      a.scatter(dqueries, m, a.scale, dqkv + a.start(b, h, 0) + i * a.row, a.row, nullptr);
      product<true>(a.amx, by_keys, {queries + h * m * a.padded_d, a.padded_d, false}, dkeys + h * head, a.padded_d,
                    a.n, a.d, m);
    }
  }
  for (int64_t h = 0; h < a.heads; h++) {
    a.scatter(dkeys + h * head, a.n, 1.f, dqkv + a.start(b, h, 1), a.row, nullptr);
    a.scatter(dvalues + h * head, a.n, 1.f, dqkv + a.start(b, h, 2), a.row, nullptr);
  }
}

static int attend_grad(const Tensors& t, Precision precision) {
  const Attention sizes(t, precision);
  const int64_t batch = sizes.batch, heads = sizes.heads, square = heads * heads, width = 2 * square + heads;
  if (t.count != 10 || !fit(sizes, t) ||
      !t.fit(6, {{batch, sizes.n, 3, heads, sizes.d}, {heads, heads}, {heads, heads}, {heads}}))
    return MISSHAPEN;
  const TalkingHeads a(t, precision);
  Scratch scratch((batch + 1) * width);
  float* sums = scratch.take((batch + 1) * width);  // of all images, then of each
  memset(sums, 0, 4 * (batch + 1) * width);
#pragma omp parallel for schedule(dynamic)
  for (int64_t b = 0; b < batch; b++) {
    float *before = sums + (b + 1) * width, *after = before + square;
    attend_grad(a, b, t[5], t[6], before, {after, after + square});
  }
  for (int64_t b = 1; b <= batch; b++)
    for (int64_t j = 0; j < width; j++) sums[j] += sums[b * width + j];
  memcpy(t[7], sums, 4 * square);
  memcpy(t[8], sums + square, 4 * square);
  memcpy(t[9], sums + 2 * square, 4 * heads);
  return DONE;
}

OPERATOR(talking_heads) { return attend(t, FLOAT32); }
OPERATOR(bfloat16_talking_heads) { return attend(t, BFLOAT16); }
OPERATOR(talking_heads_grad) { return attend_grad(t, FLOAT32); }
OPERATOR(bfloat16_talking_heads_grad) { return attend_grad(t, BFLOAT16); }
