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
 */
import type { ParameterSet, Tensor } from '../../engine/index.ts';
import {
  type AttentionTable,
  add,
  attention,
  type LinearOptions,
  multiply,
  type RowsOfBlock,
  reshape,
  tanh,
} from '../../kernels/index.ts';
import { backboneOf } from './backbones/index.ts';
import { type ModelConfiguration, memoryOf } from './configuration.ts';
import { type Layer, LayerNorm, Linear, Norm, parametersOfLayers, Table, TORCH_EPSILON } from './layers.ts';

/** Keys and values of the memory for one layer, each [batch, rows of the memory, kvHeads, headDimension]. */
export interface KeysAndValues {
  readonly key: Tensor;
  readonly value: Tensor;
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
}

/** The keys and values of each layer of an expert; undefined for layers without cross-attention. */
export type MemoryContents = readonly (KeysAndValues | undefined)[];

/** The rows of the memory that keys and values are made of, [batch, rows, width of the memory]. The two differ in the gradient that they pass. */
export type MemoryRows = Readonly<Record<'key' | 'value', Tensor>>;

/** The cross-attention of one expert in all of its layers. */
export class CrossAttention implements Layer {
  readonly parameters;
  /** By layer of the expert; null for those without. */
  private readonly sublayers: readonly (Sublayer | null)[];

  constructor(configuration: ModelConfiguration, expert: string) {
    const { depth, experts } = configuration;
    const { every, gated } = experts[expert].crossAttention!;
    const memoryWidth = experts[memoryOf(configuration, expert)[0].weights].width;
    const Kind = gated ? Gated : Plain;
    const at = (layer: number) => `${backboneOf(configuration).names.expert(expert)}.layers.${layer}`;
    this.sublayers = Array.from({ length: depth }, (_, layer) =>
      layer % every === 0 ? new Kind(configuration, expert, at(layer), memoryWidth) : null,
    );
    this.parameters = parametersOfLayers(this.sublayers.flatMap((own) => own ?? []));
  }

  /** The keys and values of the memory, for each layer. */
  contentsOf(values: ParameterSet, rows: MemoryRows): MemoryContents {
    return this.sublayers.map((sublayer) => sublayer?.reading.keysAndValues(values, rows));
  }

  /** x [batch, rows, width] before a layer -> x after its cross-attention. Without `memory`, as if no row of the memory were real. */
  run(values: ParameterSet, layer: number, x: Tensor, memory?: Memory, condition?: Tensor): Tensor {
    const sublayer = this.sublayers[layer];
    if (!sublayer) return x;
    const read: Read = (rows, options) =>
      sublayer.reading.run(values, rows, memory!, memory!.contents[layer]!, options);
    return sublayer.run(values, x, memory ? read : null, condition);
  }
}

/** A(normed, m) for the memory m of the pass. Its last product adds the residual of the options. */
type Read = (normed: Tensor, options?: LinearOptions) => Tensor;

interface Sublayer extends Layer {
  readonly reading: Reading;
  /** `read` null: there is no memory. */
  run(values: ParameterSet, x: Tensor, read: Read | null, condition: Tensor | undefined): Tensor;
}

/** A(x, m) = W_o attention(W_q x, W_k m, W_v m); see the head of this file. */
class Reading implements Layer {
  readonly parameters;
  private readonly query: Linear;
  private readonly key: Linear;
  private readonly value: Linear;
  private readonly output: Linear;

  constructor(
    private readonly configuration: ModelConfiguration,
    expert: string,
    at: string,
    memoryWidth: number,
  ) {
    const { experts, heads, kvHeads, headDimension } = configuration;
    const { width } = experts[expert];
    const matrix = (name: string, outputs: number, inputs: number) =>
      new Linear(expert, `${at}.cross_attn.${name}`, { outputs, inputs }, { bias: false });
    this.query = matrix('q_proj', heads * headDimension, width);
    this.key = matrix('k_proj', kvHeads * headDimension, memoryWidth);
    this.value = matrix('v_proj', kvHeads * headDimension, memoryWidth);
    this.output = matrix('o_proj', width, heads * headDimension);
    this.parameters = parametersOfLayers([this.query, this.key, this.value, this.output]);
  }

  keysAndValues(values: ParameterSet, { key, value }: MemoryRows): KeysAndValues {
    return {
      key: this.inHeads(this.key.run(values, key)),
      value: this.inHeads(this.value.run(values, value)),
    };
  }

  run(
    values: ParameterSet,
    x: Tensor,
    { table, queries, validity }: Memory,
    { key, value }: KeysAndValues,
    options?: LinearOptions,
  ): Tensor {
    const query = this.query.run(values, x);
    const attended = attention(this.inHeads(query), key, value, { table, queries, validity });
    return this.output.run(values, reshape(attended, query.shape), options);
  }

  private inHeads(rows: Tensor): Tensor {
    const { headDimension } = this.configuration;
    const [batch, count, width] = rows.shape;
    return reshape(rows, [batch, count, width / headDimension, headDimension]);
  }
}

/** x + A(norm(x), m) */
class Plain implements Sublayer {
  readonly parameters;
  readonly reading: Reading;
  private readonly norm: Norm;

  constructor(configuration: ModelConfiguration, expert: string, at: string, memoryWidth: number) {
    const { width, adaptive = false } = configuration.experts[expert];
    this.norm = new Norm(expert, `${at}.cross_attn_layernorm`, width, backboneOf(configuration).norm, adaptive);
    this.reading = new Reading(configuration, expert, at, memoryWidth);
    this.parameters = parametersOfLayers([this.norm, this.reading]);
  }

  run(values: ParameterSet, x: Tensor, read: Read | null, condition: Tensor | undefined): Tensor {
    if (!read) return x;
    const { output, residual, add } = this.norm.run(values, x, condition);
    return add(read(output, { residual }));
  }
}

/** y = x + tanh(g1) A(LN(x), m), and then y + tanh(g2) W_2 gelu(W_1 LN(y)) */
class Gated implements Sublayer {
  readonly parameters;
  readonly reading: Reading;
  private readonly norms: readonly LayerNorm[];
  private readonly gates: readonly Table[];
  private readonly mlp: readonly Linear[];

  constructor(configuration: ModelConfiguration, expert: string, at: string, memoryWidth: number) {
    const { width, hidden } = configuration.experts[expert];
    const norm = (name: string) => new LayerNorm(expert, `${at}.${name}`, width, TORCH_EPSILON);
    const matrix = (name: string, outputs: number, inputs: number) =>
      new Linear(expert, `${at}.cross_attn_mlp.${name}`, { outputs, inputs }, { bias: false });
    this.norms = [norm('cross_attn_layernorm'), norm('cross_attn_mlp.norm')];
    this.reading = new Reading(configuration, expert, at, memoryWidth);
    this.mlp = [matrix('fc1', hidden, width), matrix('fc2', width, hidden)];
    this.gates = ['cross_attn_gate', 'cross_attn_mlp_gate'].map(
      (name) => new Table(expert, `${at}.${name}`, [1], 'zero'),
    );
    this.parameters = parametersOfLayers([...this.norms, this.reading, ...this.mlp, ...this.gates]);
  }

  run(values: ParameterSet, x: Tensor, read: Read | null): Tensor {
    const gated = (own: Tensor, branch: Tensor, gate: Table) =>
      add(own, multiply(branch, tanh(reshape(gate.rows(values), []))));
    const seen = read ? gated(x, read(this.norms[0].run(values, x)), this.gates[0]) : x;
    const [up, down] = this.mlp;
    const hidden = up.run(values, this.norms[1].run(values, seen), { activation: 'gelu' });
    return gated(seen, down.run(values, hidden), this.gates[1]);
  }
}
