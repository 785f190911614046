import { type Device, ParameterSet, type Tensor } from '../../engine/index.ts';
import {
  type Activation,
  add,
  concatenateTokens,
  embedding,
  linear,
  reshape,
  sliceTokens,
} from '../../kernels/index.ts';
import { type BlockSettings, type ModelConfiguration, tableOf } from './configuration.ts';
import { initialise } from './initialise.ts';
import { type InputTensors, inputNamed } from './inputs.ts';
import { type MixtureOptions, type MixturePass, type MixtureResult, type PerExpert, runMixture } from './mixture.ts';
import { parametersOf, prefixes } from './parameters.ts';
import { encodeImages } from './vision.ts';

interface ModelRunOptions extends Partial<Pick<MixturePass, 'condition' | 'lossBlocks' | 'cache'>> {
  mixture?: MixtureOptions;
  /** Blocks before those that run, with their keys and values in the cache. */
  cached?: readonly string[];
  /** Replaces the model's own blocks and edges, for decoding. */
  configuration?: ModelConfiguration;
}

/** A vision-language-action model: its parameters, the embedding of its inputs, and its heads. */
export class Model implements Disposable {
  readonly parameters: ParameterSet;

  constructor(
    readonly device: Device,
    readonly configuration: ModelConfiguration,
  ) {
    this.parameters = new ParameterSet(device, parametersOf(configuration));
  }

  initialise(seed: number): void {
    initialise(this.parameters, parametersOf(this.configuration), seed);
  }

  get embeddingTable(): Tensor {
    return this.parameters.get(`${prefixes.backbone}.embed_tokens.weight`);
  }

  block(name: string): BlockSettings {
    const found = this.configuration.blocks.find((block) => block.name === name);
    if (!found) throw new Error(`the model has no block '${name}'`);
    return found;
  }

  /** Input of the backbone: its blocks among `names`, in order; null if there are none. */
  embed(inputs: InputTensors, names: readonly string[]): Tensor | null {
    const { parameters, configuration } = this;
    const { backbone, vision } = configuration;
    const parts = configuration.blocks
      .filter((block) => block.weights === 'backbone' && names.includes(block.name))
      .map(({ name, input }) =>
        input === 'images'
          ? encodeImages(parameters, vision!, inputNamed(inputs, 'images'))
          : embedding(inputNamed(inputs, `ids/${name}`), this.embeddingTable, { scale: Math.sqrt(backbone.width) }),
      );
    if (parts.length === 0) return null;
    return parts.length === 1 ? parts[0] : concatenateTokens(parts);
  }

  /**
   * Input of the action expert for noisy actions [batch, horizon, actionDimension] at the time of the inputs, and the
   * condition of its adaptive norms. The state token comes first if the system has one.
   */
  embedActions(noisy: Tensor, inputs: InputTensors): { input: Tensor; condition: Tensor | null } {
    const actions = this.affine(noisy, 'action_in_proj');
    const times = inputNamed(inputs, 'timeEmbedding');
    let input = actions;
    let condition: Tensor | null = null;
    if (this.configuration.expert!.time === 'adaptive')
      condition = this.affine(this.affine(times, 'time_mlp_in', 'swish'), 'time_mlp_out', 'swish');
    else {
      const [batch, horizon, width] = actions.shape;
      const pairs = concatenateTokens([reshape(actions, times.shape), times]);
      const beside = reshape(pairs, [batch, horizon, 2 * width]);
      input = this.affine(this.affine(beside, 'action_time_mlp_in', 'swish'), 'action_time_mlp_out');
    }
    const hasState = this.configuration.blocks.some((block) => block.input === 'state');
    if (!hasState) return { input, condition };
    return { input: concatenateTokens([this.affine(inputNamed(inputs, 'state'), 'state_proj'), input]), condition };
  }

  /** Velocity [batch, horizon, actionDimension] from the last `horizon` rows of the action expert's final hidden states. */
  velocity(hidden: Tensor): Tensor {
    const { horizon } = this.configuration;
    const rows = hidden.shape[1];
    const actions = rows === horizon ? hidden : sliceTokens(hidden, rows - horizon, horizon);
    return this.affine(actions, 'action_out_proj');
  }

  /** Runs the mixture over `blocks`, which attend to themselves and to the `cached` blocks before them. */
  run(
    inputs: InputTensors,
    blocks: readonly string[],
    rows: PerExpert<Tensor>,
    options: ModelRunOptions = {},
  ): MixtureResult {
    const { condition = null, lossBlocks, cache, mixture, cached = [], configuration = this.configuration } = options;
    return runMixture({
      parameters: this.parameters,
      configuration,
      inputs: rows,
      blocks,
      table: tableOf(configuration, [...cached, ...blocks]),
      validity: inputNamed(inputs, 'validity'),
      rotaryTable: inputNamed(inputs, 'rotaryTable'),
      condition,
      lossBlocks,
      cache,
      options: mixture,
    });
  }

  dispose(): void {
    this.parameters.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  private affine(x: Tensor, name: string, activation?: Activation): Tensor {
    return linear(x, this.parameters.get(`${name}.weight`), this.parameters.get(`${name}.bias`), { activation });
  }
}

/** The sum of the losses that a system has; `flow` is weighted already. */
export function weightedSum(token: Tensor | null, flow: Tensor | null): Tensor {
  if (token && flow) return add(token, flow);
  const only = token ?? flow;
  if (!only) throw new Error('a system without a loss cannot be trained');
  return only;
}
