import type { ParameterSet, Tensor } from '../../../engine/index.ts';
import { add, relu } from '../../../kernels/index.ts';
import { LayerNorm, Linear, parametersOfLayers, TORCH_EPSILON } from '../layers.ts';

interface Sizes {
  readonly outputs: number;
  readonly inputs: number;
}

/** MLPResNet of OpenVLA-OFT (Kim et al. 2025, arXiv 2502.19645; action_heads.py), under its public names. ReLU follows all but the last map. */
export function residualHead(
  group: string,
  { outputs, inputs }: Sizes,
  { width, blocks: count }: { width: number; blocks: number },
) {
  const at = 'action_head.model';
  /** A norm, and the affine map behind it. */
  const pair = (norm: string, linear: string, sizes: Sizes) =>
    [
      new LayerNorm(group, `${at}.${norm}`, sizes.inputs, TORCH_EPSILON),
      new Linear(group, `${at}.${linear}`, sizes),
    ] as const;
  const first = pair('layer_norm1', 'fc1', { outputs: width, inputs });
  const blocks = Array.from({ length: count }, (_, i) =>
    pair(`mlp_resnet_blocks.${i}.ffn.0`, `mlp_resnet_blocks.${i}.ffn.1`, { outputs: width, inputs: width }),
  );
  const last = pair('layer_norm2', 'fc2', { outputs, inputs: width });
  return {
    parameters: parametersOfLayers([first, ...blocks, last].flat()),
    /** x [samples, rows, inputs] -> [samples, rows, outputs] */
    run(values: ParameterSet, x: Tensor): Tensor {
      const through = ([norm, linear]: typeof first, own: Tensor) => linear.run(values, norm.run(values, own));
      let hidden = relu(through(first, x));
      for (const block of blocks) hidden = add(hidden, relu(through(block, hidden)));
      return through(last, hidden);
    },
  };
}
