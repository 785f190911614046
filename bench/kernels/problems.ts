/** The ops of a step at the sizes of a model. */
import * as kernels from '../../kernels/index.ts';
import * as exact from '../../kernels/reference/index.ts';
import * as problem from './problem.ts';
import { ids, marks, type Problem, problemOf } from './problem.ts';
import type { ModelShape } from './shapes.ts';

/** Every op of a model but the optimizer. */
export function problemsOf(model: ModelShape): Problem[] {
  const { batch: B, prefix, fast, action, width: W, hidden, expertWidth: E, expertHidden, heads, kvHeads } = model;
  const { headDimension: D, vocabulary: V, image, patch } = model;
  const backbone = prefix + fast;
  const all = backbone + action;
  const inner = heads * D;
  const owners = [
    { input: 0, length: backbone },
    { input: 1, length: action },
  ];
  // Tokens of the backbone and of the expert, and their sizes in words.
  const x = [B, backbone, W];
  const y = [B, action, E];
  const [ofX, ofY] = [`${backbone} x ${W}`, `${action} x ${E}`];
  const modulation = [B, 3 * E];
  const joint = [B, all, inner];
  const sizes = `${all} x ${inner}`;
  const { full, causal, insulated } = kernels;
  const table = kernels.attentionTable(kernels.sequence({ prefix, fast, action }), {
    prefix: { prefix: full },
    fast: { prefix: full, fast: causal },
    action: { prefix: insulated, action: full },
  });
  const address = { seed: 1, step: 2, stream: 3 };
  return [
    problem.linear(`${ofX} to ${W}`, { x, weight: [W, W] }),
    problem.linear(`${B} x ${E} to ${3 * E}, bias`, { x: [B, E], weight: [3 * E, E], bias: [3 * E] }),
    problem.blockLinear(`joint queries of ${sizes}`, { x, y, ofX: [inner, W], ofY: [inner, E] }, owners, B),
    problem.blockSplitLinear(`joint output of ${sizes}`, { joint, ofX: [W, inner], ofY: [E, inner] }, owners, 0),
    problem.gatedMlp(`backbone, ${ofX}, hidden ${hidden}`, x, hidden),
    problem.gatedMlp(`expert, ${ofY}, hidden ${expertHidden}`, y, expertHidden),
    problem.attention('knowledge insulation', table, { batch: B, heads, kvHeads, headDimension: D }),
    problem.matmul(
      `${all} x ${all} x ${D}, ${heads} matrices`,
      { a: [heads, all, all], b: [heads, all, D] },
      { batch: heads, m: all, n: D, k: all, shared: false },
    ),
    problemOf(`softmax, ${heads * all} x ${all}`, { x: [heads * all, all] }, [
      kernels.softmax,
      (x) => exact.softmax(x, all),
    ]),
    problemOf(`rmsNorm, ${ofX}`, { x, weight: [W] }, [(x, w) => kernels.rmsNorm(x, w), (x, w) => exact.rmsNorm(x, w)]),
    problemOf(`adaptiveRmsNorm, ${ofY}`, { x: y, modulation }, [
      (x, modulation) => kernels.adaptiveRmsNorm(x, modulation),
      (x, modulation) => exact.adaptiveRmsNorm(x, modulation, E),
    ]),
    problemOf(`gatedResidual, ${ofY}`, { x: y, branch: y, modulation }, [
      (x, branch, modulation) => kernels.gatedResidual(x, branch, modulation),
      (x, branch, modulation) => exact.gatedResidual(x, branch, modulation, E),
    ]),
    problemOf(`layerNorm, ${ofX}`, { x, weight: [W], bias: [W] }, [
      (x, weight, bias) => kernels.layerNorm(x, weight, bias),
      (x, weight, bias) => exact.layerNorm(x, weight, bias),
    ]),
    problem.activation(kernels.gelu, `${backbone} x ${hidden}`, [B, backbone, hidden]),
    problem.activation(kernels.swish, ofY, y),
    problemOf(`add, ${ofX}`, { a: x, b: x }, [kernels.add, exact.add]),
    problemOf(`multiply, ${ofX} by ${W}`, { a: x, b: [W] }, [
      kernels.multiply,
      (a, b) => exact.pairwise(a, b, (p, q) => p * q),
    ]),
    problemOf(`scale, ${ofX}`, { x }, [(x) => kernels.scale(x, 0.5), (x) => x.map((value) => 0.5 * value)]),
    problem.cast('bf16', ofX, x),
    problem.rotary(`${all} x ${heads} x ${D}`, [B, all, heads, D]),
    problemOf(`embedding, ${backbone} of ${V} x ${W}`, { tokens: ids([B, backbone], V), table: [V, W] }, [
      (tokens, table) => kernels.embedding(tokens, table),
      (tokens, table) => exact.embedding(tokens, table, W),
    ]),
    problemOf(
      `patchEmbedding, ${image} x ${image}, patch ${patch}`,
      {
        ...{ images: [B, image, image, 3], weight: [W, 3, patch, patch], bias: [W] },
        position: [(image / patch) ** 2, W],
      },
      [kernels.patchEmbedding, (...given) => exact.patchEmbedding(given, { height: image, width: image, patch })],
    ),
    problemOf(`concatenateTokens, ${prefix} + ${fast} x ${W}`, { first: [B, prefix, W], second: [B, fast, W] }, [
      (...parts) => kernels.concatenateTokens(parts),
      (...parts) => exact.concatenateTokens(parts, B),
    ]),
    problemOf(`sliceTokens, ${fast} of ${ofX}`, { x }, [
      (given) => kernels.sliceTokens(given, prefix, fast),
      (given) => exact.sliceTokens(given, x, prefix, fast),
    ]),
    problem.linearCrossEntropy(`${fast} x ${W}, vocabulary ${V}`, {
      ...{ hidden: [B, fast, W], embedding: [V, W], mask: marks([B, fast]) },
    }),
    problem.loss(kernels.meanSquaredError, ofY, y),
    problemOf(`eulerStep, ${ofY}`, { x: y, velocity: y }, [
      (x, velocity) => kernels.eulerStep(x, velocity, -0.1),
      (x, velocity) => exact.pairwise(x, velocity, (a, v) => a - 0.1 * v),
    ]),
    {
      ...problemOf(`flowInterpolate, ${ofY}`, { actions: { shape: y }, noise: { shape: y }, time: { shape: [B] } }, [
        (actions, noise, time) => kernels.flowInterpolate(actions, noise, time).noisy,
        (actions, noise, time) => exact.flowInterpolate(actions, noise, time).noisy,
      ]),
      backward: false,
    },
    {
      ...problemOf(`randomUniform, ${ofX}`, { address: { shape: [4], ids: kernels.randomAddress(address) } }, [
        (given) => kernels.randomUniform([backbone * W], given),
        () => Float64Array.from(exact.randomUniform(backbone * W, address)),
      ]),
      backward: false,
    },
    problemOf(`sum, ${ofX}`, { x }, [kernels.sum, (x) => Float64Array.of(exact.total(x))]),
  ];
}
