import type { ParameterSet, Tensor } from '../../../engine/index.ts';
import { add, relu } from '../../../kernels/index.ts';
import { type Layer, LayerNorm, Linear, parametersOfLayers, TORCH_EPSILON } from '../layers.ts';

/** MLPResNet of OpenVLA-OFT (Kim et al. 2025, arXiv 2502.19645; action_heads.py), under its public names. ReLU follows all but the last map. */
export class ResidualHead implements Layer {
  readonly parameters;
  private readonly first: readonly [LayerNorm, Linear];
  private readonly blocks: readonly (readonly [LayerNorm, Linear])[];
  private readonly last: readonly [LayerNorm, Linear];

  constructor(
    group: string,
    { outputs, inputs }: { outputs: number; inputs: number },
    { width, blocks }: { width: number; blocks: number },
  ) {
    const at = 'action_head.model';
    const norm = (name: string, size: number) => new LayerNorm(group, `${at}.${name}`, size, TORCH_EPSILON);
    const linear = (name: string, sizes: { outputs: number; inputs: number }) =>
      new Linear(group, `${at}.${name}`, sizes);
    this.first = [norm('layer_norm1', inputs), linear('fc1', { outputs: width, inputs })];
    this.blocks = Array.from({ length: blocks }, (_, i) => [
      norm(`mlp_resnet_blocks.${i}.ffn.0`, width),
      linear(`mlp_resnet_blocks.${i}.ffn.1`, { outputs: width, inputs: width }),
    ]);
    this.last = [norm('layer_norm2', width), linear('fc2', { outputs, inputs: width })];
    this.parameters = parametersOfLayers([...this.first, ...this.blocks.flat(), ...this.last]);
  }

  /** x [samples, rows, inputs] -> [samples, rows, outputs] */
  run(values: ParameterSet, x: Tensor): Tensor {
    const through = ([norm, linear]: readonly [LayerNorm, Linear], own: Tensor) =>
      linear.run(values, norm.run(values, own));
    let hidden = relu(through(this.first, x));
    for (const block of this.blocks) hidden = add(hidden, relu(through(block, hidden)));
    return through(this.last, hidden);
  }
}
