/**
 * Cross-attention: before some of its layers, the rows x of an expert read memory m, rows that are no part of the joint sequence.
 *
 *   plain  x += A(norm(x), m) with the norm of the expert: an adaptive one also gates the branch (AdaLN-zero of DiT: Peebles and Xie
 *          2023, arXiv 2212.09748)
 *   gated  x += tanh(g1) A(LN(x), m);  x += tanh(g2) W_2 gelu(W_1 LN(x)): both gates begin at 0, so that the expert begins as it is
 *          without memory (Flamingo: Alayrac et al. 2022, arXiv 2204.14198; its GELU is exact, this is the tanh form)
 *
 * with A(x, m) = W_o attention(W_q x, W_k m, W_v m), without biases and without rotary embedding. Rows that see no real row of the
 * memory read zeros.
 *
 * With low-rank adaptation of its expert, the plain form keeps its values and has adapters, as the expert's own attention does. The gated
 * form is itself what a transformer that keeps its values gets beside it: it has no adapters, and is trained whole.
 */
import type { ParameterSet, Tensor } from '../../engine/index.ts';
import {
  type AttentionTable,
  add,
  attention,
  cast,
  type LinearOptions,
  multiply,
  type RowsOfBlock,
  reshape,
  tanh,
} from '../../kernels/index.ts';
import { backboneOf } from './backbones/index.ts';
import { lowRankOf, type ModelConfiguration, memoryOf } from './configuration.ts';
import {
  adaptersOfLayers,
  keptOfLayers,
  type Layer,
  LayerNorm,
  Linear,
  type LowRankSettings,
  Norm,
  parametersOfLayers,
  Table,
  TORCH_EPSILON,
} from './layers.ts';

/** Keys and values of the memory for one layer, each [batch, rows of the memory, kvHeads, headDimension]. */
interface KeysAndValues {
  readonly key: Tensor;
  readonly value: Tensor;
}

/** One attention as it ran: what it got, and its output [batch, rows of the queries, heads, headDimension]. */
export interface AttentionRun {
  readonly table: AttentionTable;
  /** Blocks of the table, or rows of a block. */
  readonly queries: readonly (string | RowsOfBlock)[];
  readonly validity: Tensor;
  readonly query: Tensor;
  readonly key: Tensor;
  readonly value: Tensor;
  readonly output: Tensor;
}

/** Memory as the rows of an expert read it in a pass. */
export interface Memory {
  /** The table over the blocks of the expert that run, which have queries only, and the blocks of the memory behind them. */
  readonly table: AttentionTable;
  /** The blocks of the table, or rows of a block, that the expert runs in this pass, in order. */
  readonly queries: readonly (string | RowsOfBlock)[];
  /** The padding mask [batch, tokens of the table] u32. */
  readonly validity: Tensor;
  readonly contents: MemoryContents;
  /** Gets every attention to the memory. */
  readonly onAttention?: (run: AttentionRun) => void;
}

/** The keys and values of each layer of an expert; undefined for layers without cross-attention. */
export type MemoryContents = readonly (KeysAndValues | undefined)[];

/** The rows of the memory that keys and values are made of, [batch, rows, width of the memory]. The two differ in the gradient that they pass. */
export type MemoryRows = Readonly<Record<'key' | 'value', Tensor>>;

/** The cross-attention of one expert in all of its layers. */
export interface CrossAttention extends Layer {
  /** The keys and values of the memory, for each layer. */
  contentsOf(values: ParameterSet, rows: MemoryRows): MemoryContents;
  /** x [batch, rows, width] before a layer -> x after its cross-attention. Without `memory`, as if no row of the memory were real. */
  run(values: ParameterSet, layer: number, x: Tensor, memory?: Memory, condition?: Tensor): Tensor;
}

export function crossAttentionOf(configuration: ModelConfiguration, expert: string): CrossAttention {
  const { depth, experts } = configuration;
  const { every, gated } = experts[expert].crossAttention!;
  const sublayerAt = gated ? gatedSublayer : plainSublayer;
  const root = backboneOf(configuration).names.expert(expert);
  /** By layer of the expert; null for those without. */
  const sublayers = Array.from({ length: depth }, (_, layer) =>
    layer % every === 0 ? sublayerAt(configuration, expert, `${root}.layers.${layer}`) : null,
  );
  return {
    parameters: parametersOfLayers(sublayers.flatMap((own) => own ?? [])),
    adapters: adaptersOfLayers(sublayers.flatMap((own) => own ?? [])),
    kept: keptOfLayers(sublayers.flatMap((own) => own ?? [])),
    contentsOf: (values, rows) => sublayers.map((own) => own?.reading.keysAndValues(values, rows)),
    run(values, layer, x, memory, condition) {
      const sublayer = sublayers[layer];
      if (!sublayer) return x;
      const read: Read = (rows, options) =>
        sublayer.reading.run(values, rows, memory!, memory!.contents[layer]!, options);
      return sublayer.run(values, x, memory ? read : null, condition);
    },
  };
}

/** A(normed, m) for the memory m of the pass. Its last product adds the residual of the options. */
type Read = (normed: Tensor, options?: LinearOptions) => Tensor;

interface Sublayer extends Layer {
  readonly reading: ReturnType<typeof readingOf>;
  /** `read` null: there is no memory. */
  run(values: ParameterSet, x: Tensor, read: Read | null, condition: Tensor | undefined): Tensor;
}

/** A(x, m) = W_o attention(W_q x, W_k m, W_v m); see the head of this file. */
function readingOf(
  configuration: ModelConfiguration,
  expert: string,
  at: string,
  adapter: LowRankSettings | null = null,
) {
  const { experts, heads, kvHeads, headDimension, precision = 'f32' } = configuration;
  const { width } = experts[expert];
  const memoryWidth = experts[memoryOf(configuration, expert)[0].weights].width;
  const matrix = (name: string, outputs: number, inputs: number) =>
    new Linear(expert, `${at}.cross_attn.${name}`, { outputs, inputs }, { bias: false, adapter });
  const query = matrix('q_proj', heads * headDimension, width);
  const key = matrix('k_proj', kvHeads * headDimension, memoryWidth);
  const value = matrix('v_proj', kvHeads * headDimension, memoryWidth);
  const output = matrix('o_proj', width, heads * headDimension);
  const inHeads = (rows: Tensor) => {
    const [batch, count, width] = rows.shape;
    return reshape(rows, [batch, count, width / headDimension, headDimension]);
  };
  return {
    parameters: parametersOfLayers([query, key, value, output]),
    adapters: adaptersOfLayers([query, key, value, output]),
    keysAndValues: (values: ParameterSet, rows: MemoryRows): KeysAndValues => ({
      key: inHeads(key.run(values, rows.key, { dtype: precision })),
      value: inHeads(value.run(values, rows.value, { dtype: precision })),
    }),
    run(values: ParameterSet, x: Tensor, memory: Memory, contents: KeysAndValues, options?: LinearOptions): Tensor {
      const asking = query.run(values, x);
      const { table, queries, validity } = memory;
      const [own, { key, value }] = [inHeads(asking), contents];
      const attended = attention(own, key, value, { table, queries, validity });
      memory.onAttention?.({ table, queries, validity, query: own, key, value, output: attended });
      return output.run(values, reshape(attended, asking.shape), options);
    },
  };
}

/** x + A(norm(x), m) */
function plainSublayer(configuration: ModelConfiguration, expert: string, at: string): Sublayer {
  const { width, adaptive = false } = configuration.experts[expert];
  const norm = new Norm(expert, `${at}.cross_attn_layernorm`, width, backboneOf(configuration).norm, adaptive);
  const reading = readingOf(configuration, expert, at, lowRankOf(configuration, expert));
  return {
    parameters: parametersOfLayers([norm, reading]),
    kept: keptOfLayers([norm, reading]),
    adapters: reading.adapters,
    reading,
    run(values, x, read, condition) {
      if (!read) return x;
      const { output, residual, add } = norm.run(values, x, condition);
      return add(read(output, { residual }));
    },
  };
}

/** y = x + tanh(g1) A(LN(x), m), and then y + tanh(g2) W_2 gelu(W_1 LN(y)) */
function gatedSublayer(configuration: ModelConfiguration, expert: string, at: string): Sublayer {
  const { precision = 'f32' } = configuration;
  const { width, hidden } = configuration.experts[expert];
  const norm = (name: string) => new LayerNorm(expert, `${at}.${name}`, width, TORCH_EPSILON);
  const matrix = (name: string, outputs: number, inputs: number) =>
    new Linear(expert, `${at}.cross_attn_mlp.${name}`, { outputs, inputs }, { bias: false });
  const [before, between] = [norm('cross_attn_layernorm'), norm('cross_attn_mlp.norm')];
  const reading = readingOf(configuration, expert, at);
  const [up, down] = [matrix('fc1', hidden, width), matrix('fc2', width, hidden)];
  const gate = (name: string) => new Table(expert, `${at}.${name}`, [1], 'zero');
  const [ofReading, ofMlp] = [gate('cross_attn_gate'), gate('cross_attn_mlp_gate')];
  return {
    parameters: parametersOfLayers([before, between, reading, up, down, ofReading, ofMlp]),
    kept: [],
    reading,
    run(values, x, read) {
      const gated = (own: Tensor, branch: Tensor, gate: Table) =>
        add(own, cast(multiply(cast(branch, 'f32'), tanh(reshape(gate.rows(values), []))), precision));
      const seen = read ? gated(x, read(before.run(values, x)), ofReading) : x;
      const hidden = up.run(values, between.run(values, seen), { activation: 'gelu' });
      return gated(seen, down.run(values, hidden), ofMlp);
    },
  };
}
