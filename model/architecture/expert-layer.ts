import type { ParameterSet, Tensor } from '../../engine/index.ts';
import { gatedMlp, multiply } from '../../kernels/index.ts';
import type { Backbone } from './backbones/index.ts';
import { type ExpertSettings, lowRankOf, type ModelConfiguration } from './configuration.ts';
import { adaptersOfLayers, keptOfLayers, type Layer, Linear, Norm, parametersOfLayers } from './layers.ts';

/** The weights of one expert in one layer. */
export class ExpertLayer implements Layer {
  readonly parameters;
  readonly adapters;
  readonly kept;
  /** Whether its matrices have adapters. */
  readonly adapted: boolean;
  readonly attentionNorm: Norm;
  readonly query: Linear;
  readonly key: Linear;
  readonly value: Linear;
  readonly output: Linear;
  private readonly mlpNorm: Norm;
  private readonly mlp: readonly Linear[];

  constructor(
    group: string,
    prefix: string,
    { width, hidden, adaptive = false }: ExpertSettings,
    configuration: ModelConfiguration,
    private readonly family: Backbone,
  ) {
    const { heads, kvHeads, headDimension } = configuration;
    const adapter = lowRankOf(configuration, group);
    this.adapted = adapter !== null;
    const norm = (name: string) => new Norm(group, `${prefix}.${name}`, width, family.norm, adaptive);
    const matrix = (name: string, outputs: number, inputs: number) =>
      new Linear(group, `${prefix}.${name}`, { outputs, inputs }, { bias: false, adapter });
    this.attentionNorm = norm('input_layernorm');
    this.query = matrix('self_attn.q_proj', heads * headDimension, width);
    this.key = matrix('self_attn.k_proj', kvHeads * headDimension, width);
    this.value = matrix('self_attn.v_proj', kvHeads * headDimension, width);
    this.output = matrix('self_attn.o_proj', width, heads * headDimension);
    this.mlpNorm = norm('post_attention_layernorm');
    this.mlp = [
      matrix('mlp.gate_proj', hidden, width),
      matrix('mlp.up_proj', hidden, width),
      matrix('mlp.down_proj', width, hidden),
    ];
    const { attentionNorm, query, key, value, output, mlpNorm, mlp } = this;
    const layers = [attentionNorm, query, key, value, output, mlpNorm, ...mlp];
    this.parameters = parametersOfLayers(layers);
    this.adapters = adaptersOfLayers(layers);
    this.kept = keptOfLayers(layers);
  }

  /** x [batch, rows, width] + MLP(norm(x)) */
  runMlp(values: ParameterSet, x: Tensor, condition: Tensor | undefined): Tensor {
    const { output, residual, add } = this.mlpNorm.run(values, x, condition);
    const { activation } = this.family;
    if (this.adapted) {
      const [gate, up, down] = this.mlp;
      const hidden = multiply(gate.run(values, output, { activation }), up.run(values, output));
      return add(down.run(values, hidden, { residual }));
    }
    const [gate, up, down] = this.mlp.map((matrix) => matrix.weight(values));
    return add(gatedMlp(output, gate, up, down, { residual, activation }));
  }
}
