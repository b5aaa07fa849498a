// A whole block of a transformer: in evaluation, in training, and its gradient.

#include "common.h"

constexpr int64_t LEAST = 24;  // tokens of a thread

struct Half {  // of a block: weights of attention or of the MLP, or their gradients
  float *gamma, *beta, *first, *first_bias, *second, *second_bias, *gain;

  Half(const Tensors& t, int i)
      : gamma(t[i]), beta(t[i + 1]), first(t[i + 2]), first_bias(t[i + 3]), second(t[i + 4]), second_bias(t[i + 5]),
        gain(t[i + 6]) {}
};

struct Sizes {
  int64_t batch, n, dim, heads, d, hidden;

  Sizes(const Tensors& t, int x)  // of x and what follows it
      : batch(t.size(x, 0)), n(t.size(x, 1)), dim(t.size(x, 2)), heads(t.size(x + 4, 1)), d(t.size(x + 4, 2)),
        hidden(t.size(x + 10, 0)) {}

  // From the i-th tensor on: x, and the weights of attention and MLP; or their gradients.
  bool of_weights(const Tensors& t, int i) const {
    return n && heads * d == dim &&
           t.fit(i, {{batch, n, dim}, {dim}, {dim}, {3 * dim, dim}, {3, heads, d}, {dim, dim}, {dim}, {dim}, {dim},
                     {dim}, {hidden, dim}, {hidden}, {dim, hidden}, {dim}, {dim}});
  }
  // The factors of images for both residuals, and epsilon.
  bool of_factors(const Tensors& t, int i) const { return t.fit(i, {{batch}, {batch}, {1}}); }
  bool of_kept(const Tensors& t, int i) const {
    return t.fit(i, {{batch, n, 3, heads, d}, {batch, n, dim}, {batch, n, dim}, {batch, n, hidden}});
  }
  int64_t widest() const { return 3 * dim > hidden ? 3 * dim : hidden; }
};

// What training keeps for the gradient; in evaluation the memory serves again at once.
struct Kept {
  float *stacked, *mixed, *middle, *hidden;  // queries, keys, values; mixed values; after a residual; before GELU
};

// What part writes, added to a total, or as its beginning.
template <class Part>
static void add_up(float* total, int64_t width, bool add, Part part) {
  if (!add) return part(total);
  Scratch scratch(width);
  float* more = scratch.take(width);
  part(more);
  for (int64_t j = 0; j < width; j++) total[j] += more[j];
}

struct Block : Sizes {
  const float* x;
  Half attention, mlp;
  const float *attention_factors, *mlp_factors;
  float epsilon;
  Precision precision;

  Block(const Tensors& t, int i, Precision precision)
      : Sizes(t, i), x(t[i]), attention(t, i + 1), mlp(t, i + 8), attention_factors(t[i + 15]),
        mlp_factors(t[i + 16]), epsilon(t[i + 17][0]), precision(precision) {}

  // Some images, shared by so many threads. Each has its own tokens from the first norm to the last sum, so that what is
  // in between stays in its caches; only attention sees those of others.
  int forward(float* y, const Kept* kept, int64_t image, int64_t images, int64_t threads) const {
    const int64_t tokens = images * n, start = image * n * dim;
    Scratch scratch(tokens * (2 * dim + widest()) + 48);
    float *h = scratch.take(tokens * dim), *branch = scratch.take(tokens * dim), *wide = scratch.take(tokens * widest());
    const float* from = x + start;
    y += start;
    const Kept to = kept ? Kept{kept->stacked + 3 * start, kept->mixed + start, kept->middle + start,
                                kept->hidden + image * n * hidden}
                         : Kept{wide, h, y, wide};
    int ended = DONE;
#pragma omp parallel num_threads(threads) reduction(| : ended) if (threads > 1)
    {
      const int64_t part = omp_get_thread_num(), parts = omp_get_num_threads();
      const int64_t first = tokens * part / parts, last = tokens * (part + 1) / parts, rows = last - first;
      const int64_t i = first * dim, j = first * hidden;
      normalise(from + i, attention.gamma, attention.beta, epsilon, h + i, rows, dim);
      ended |= multiply(precision, h + i, attention.first, nullptr, to.stacked + 3 * i, rows, dim, 3 * dim);
#pragma omp barrier  // all queries, keys and values are there
      attend(precision, to.stacked, attention.first_bias, to.mixed, n, heads, d, first, last);
#pragma omp barrier  // nobody needs them any longer
      ended |= multiply(precision, to.mixed + i, attention.second, attention.second_bias, branch + i, rows, dim, dim);
      add_branch(from, branch, attention.gain, attention_factors + image, to.middle, first, last, n, dim);
      normalise(to.middle + i, mlp.gamma, mlp.beta, epsilon, h + i, rows, dim);
      ended |= multiply(precision, h + i, mlp.first, nullptr, to.hidden + j, rows, dim, hidden);
      gelu(to.hidden + j, mlp.first_bias, wide + j, rows, hidden);
      ended |= multiply(precision, wide + j, mlp.second, mlp.second_bias, branch + i, rows, hidden, dim);
      add_branch(to.middle, branch, mlp.gain, mlp_factors + image, y, first, last, n, dim);
    }
    return ended;
  }

  // Each thread takes parts of equal size, of whole images; all of them share the images that are left.
  int forward(float* y, const Kept* kept) const {
    // Tokens: with fewer, products pack weights for little work; the faster the product, the more so.
    const int64_t fewest = (precision == BFLOAT16 ? 4 : 2) * dim, enough = fewest > 192 ? fewest : 192;
    const int64_t threads = omp_get_max_threads(), each = batch / threads, wanted = (enough + n - 1) / n;
    const int64_t images = each / ((each + wanted - 1) / wanted + !each), parts = images ? each / images * threads : 0;
    int ended = DONE;
#pragma omp parallel for schedule(static) reduction(| : ended)
    for (int64_t part = 0; part < parts; part++) ended |= forward(y, kept, part * images, images, 1);
    const int64_t rest = batch - parts * images, most = rest * n / LEAST + 1;
    if (rest) ended |= forward(y, kept, parts * images, rest, most < threads ? most : threads);
    return ended;
  }

  // Some images at a time, so that what is in between stays in a cache, but no fewer than products need to earn what
  // packing the weights costs. What the images add to the weights' gradients adds up.
  int backward(const float* dy, const Kept& kept, float* dx, const Half& dattention, const Half& dmlp) const {
    const int64_t cached = (1 << 21) / (2 * dim + widest()), tokens = cached < 4 * dim ? 4 * dim : cached;
    const int64_t most = tokens < n ? 1 : tokens / n, images = most < batch ? most : batch;
    int ended = DONE;
    for (int64_t image = 0; image < batch; image += images) {
      const int64_t i = image * n * dim, j = image * n * hidden;
      Block part = *this;
      part.batch = image + images < batch ? images : batch - image;
      part.x += i;
      part.attention_factors += image;
      part.mlp_factors += image;
      const Kept of_part{kept.stacked + 3 * i, kept.mixed + i, kept.middle + i, kept.hidden + j};
      ended |= part.add_gradients(dy + i, of_part, dx + i, dattention, dmlp, image > 0);
    }
    through_gain(attention, dattention, dim);
    through_gain(mlp, dmlp, hidden);
    return ended;
  }

 private:
  // The weights' gradients are added to what is there already, or begun. Gains are left out of those of second products.
  int add_gradients(const float* dy, const Kept& kept, float* dx, const Half& dattention, const Half& dmlp,
                    bool add) const {
    const int64_t rows = batch * n;
    Scratch scratch(rows * (2 * dim + widest()) + 48);
    float *branch = scratch.take(rows * dim), *h = scratch.take(rows * dim), *wide = scratch.take(rows * widest());
    gelu(kept.hidden, mlp.first_bias, wide, rows, hidden);
    int ended = second(dy, mlp_factors, wide, mlp, branch, wide, dmlp, hidden, add);
    add_up(dmlp.first_bias, hidden, add, [&](float* sums) {
      gelu_grad(kept.hidden, mlp.first_bias, wide, wide, sums, rows, hidden);
    });
    ended |= first(wide, kept.middle, mlp, dy, h, dx, dmlp, hidden, add);  // the gradient of what is in the middle
    ended |= second(dx, attention_factors, kept.mixed, attention, branch, h, dattention, dim, add);
    add_up(dattention.first_bias, 3 * dim, add, [&](float* sums) {
      attend_grad(precision, kept.stacked, attention.first_bias, h, wide, sums, batch, n, heads, d);
    });
    return ended | first(wide, x, attention, dx, h, dx, dattention, 3 * dim, add);
  }

  // dy -> the branch's gradient before the second product, and those of its weight and bias.
  int second(const float* dy, const float* factors, const float* inner, const Half& half, float* branch, float* dinner,
             const Half& grads, int64_t in, bool add) const {
    const int64_t rows = batch * n;
    scale(dy, nullptr, factors, branch);
    int ended = multiply_weight_grad(precision, branch, inner, grads.second, rows, in, dim, add);
    add_up(grads.second_bias, dim, add, [&](float* sums) { sum_columns(branch, sums, rows, dim); });
    scale(branch, half.gain, nullptr, branch);
    return ended | multiply_rows_grad(precision, branch, half.second, dinner, rows, in, dim);
  }

  // The first product's gradient -> that of what the norm takes, added to dy (where dx may be); and those of its weights.
  int first(const float* dproduct, const float* from, const Half& half, const float* dy, float* h, float* dx,
            const Half& grads, int64_t out, bool add) const {
    const int64_t rows = batch * n;
    normalise(from, half.gamma, half.beta, epsilon, h, rows, dim);
    int ended = multiply_weight_grad(precision, dproduct, h, grads.first, rows, dim, out, add);
    ended |= multiply_rows_grad(precision, dproduct, half.first, h, rows, dim, out);
    Scratch scratch(2 * dim);
    float* sums = scratch.take(2 * dim);
    normalise_grad(from, half.gamma, h, epsilon, h, sums, rows, dim);
    add_up(grads.gamma, dim, add, [&](float* to) { memcpy(to, sums, 4 * dim); });
    add_up(grads.beta, dim, add, [&](float* to) { memcpy(to, sums + dim, 4 * dim); });
#pragma omp parallel for simd schedule(static) if (parallel : rows * dim > WORTH_THREADS)
    for (int64_t i = 0; i < rows * dim; i++) dx[i] = dy[i] + h[i];
    return ended;
  }

  // The branch is gain (W inner + bias). With G the gradient of W without gain, that of gain is G W by rows.
  void through_gain(const Half& half, const Half& grads, int64_t in) const {
#pragma omp parallel for schedule(static) if (dim * in > WORTH_THREADS)
    for (int64_t j = 0; j < dim; j++) {
      float *grad = grads.second + j * in, gain = half.gain[j];
      const float* weight = half.second + j * in;
      Vector total{};
      along(in, [&](int64_t k, int64_t count) {
        const Vector g = load(grad + k, count);
        total += g * load(weight + k, count);
        store(grad + k, g * gain, count);
      });
      grads.gain[j] = sum(total) + half.second_bias[j] * grads.second_bias[j];
      grads.second_bias[j] *= gain;
    }
  }

  // By channel and by image; either may be missing.
  void scale(const float* from, const float* gain, const float* factors, float* to) const {
#pragma omp parallel for schedule(static) if (batch * n * dim > WORTH_THREADS)
    for (int64_t i = 0; i < batch * n; i++) {
      const float factor = factors ? factors[i / n] : 1.f;
      along(dim, [&](int64_t j, int64_t count) {
        const Vector v = load(from + i * dim + j, count) * factor;
        store(to + i * dim + j, gain ? v * load(gain + j, count) : v, count);
      });
    }
  }
};

static int evaluate(const Tensors& t, Precision precision) {
  const Sizes s(t, 0);
  if (t.count != 19 || !s.of_weights(t, 0) || !s.of_factors(t, 15) || !t.fit(18, {{s.batch, s.n, s.dim}}))
    return MISSHAPEN;
  return Block(t, 0, precision).forward(t[18], nullptr);
}

static int train(const Tensors& t, Precision precision) {
  const Sizes s(t, 0);
  if (t.count != 23 || !s.of_weights(t, 0) || !s.of_factors(t, 15) || !t.fit(18, {{s.batch, s.n, s.dim}}) ||
      !s.of_kept(t, 19))
    return MISSHAPEN;
  const Kept kept{t[19], t[20], t[21], t[22]};
  return Block(t, 0, precision).forward(t[18], &kept);
}

static int differentiate(const Tensors& t, Precision precision) {
  const Sizes s(t, 1);
  if (t.count != 38 || !t.fit(0, {{s.batch, s.n, s.dim}}) || !s.of_weights(t, 1) || !s.of_factors(t, 16) ||
      !s.of_kept(t, 19) || !s.of_weights(t, 23))
    return MISSHAPEN;
  return Block(t, 1, precision).backward(t[0], {t[19], t[20], t[21], t[22]}, t[23], Half(t, 24), Half(t, 31));
}

OPERATOR(transformer_block) { return evaluate(t, FLOAT32); }
OPERATOR(transformer_block_kept) { return train(t, FLOAT32); }
OPERATOR(transformer_block_grad) { return differentiate(t, FLOAT32); }
OPERATOR(bfloat16_transformer_block) { return evaluate(t, BFLOAT16); }
OPERATOR(bfloat16_transformer_block_kept) { return train(t, BFLOAT16); }
OPERATOR(bfloat16_transformer_block_grad) { return differentiate(t, BFLOAT16); }
