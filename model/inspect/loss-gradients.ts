/** The gradient of each loss by itself, and the parts of a model by which gradients are summed up. */
import { backward, bytesPerElement, elementCount, joinNumbers } from '../../engine/index.ts';
import { type Inputs, tensorsOf } from '../architecture/inputs.ts';
import { type Layer, parametersOfLayers } from '../architecture/layers.ts';
import type { Architecture, Model } from '../architecture/model.ts';
import { groupsOf } from '../architecture/rules.ts';
import { trainingPass } from '../architecture/training-pass.ts';

/** Parameters of one group: those of one layer, or of one module before or after the layers. */
export interface ModelPart {
  readonly group: string;
  /** `layer 0`, ..., or the name of the module, such as `embed_tokens`. */
  readonly name: string;
  /** The number of its layer in its transformer; null outside of the layers. */
  readonly layer: number | null;
  /** Names of the parameters, without those that are frozen. */
  readonly parameters: readonly string[];
  /** Their elements, and those of frozen parameters beside them. */
  readonly elements: number;
  readonly frozen: number;
}

/** The parts of a model in the order of its pass: vision, then the experts, each with its inputs, its layers and its outputs. */
export function partsOf({ configuration, parameters, blockInputs, objectives }: Architecture): ModelPart[] {
  const { vision, experts } = configuration;
  const namesOf = (layers: readonly Layer[]) => new Set(parametersOfLayers(layers).map(({ name }) => name));
  const inputs = namesOf([...blockInputs.embeddings, ...blockInputs.layers]);
  const heads = namesOf(objectives.flatMap(({ layers, conditioning = [] }) => [...layers, ...conditioning]));
  const order = [...Object.keys(vision?.towers ?? {}), 'projector', ...Object.keys(experts), ...groupsOf(parameters)];
  const place = ({ name, group }: (typeof parameters)[number]) => 2 * order.indexOf(group) + (inputs.has(name) ? 0 : 1);
  const parts = new Map<string, ModelPart>();
  for (const { name: own, group, shape, frozen } of parameters.toSorted((a, b) => place(a) - place(b))) {
    const layer = /\b(?:layers|blocks)\.(\d+)\./.exec(own)?.[1];
    const name = layer === undefined ? moduleOf(own, heads.has(own)) : `layer ${layer}`;
    const key = JSON.stringify([group, name]);
    const number = layer === undefined ? null : Number(layer);
    const part = parts.get(key) ?? { group, name, layer: number, parameters: [], elements: 0, frozen: 0 };
    const size = elementCount(shape);
    parts.set(key, {
      ...part,
      parameters: frozen ? part.parameters : [...part.parameters, own],
      elements: part.elements + (frozen ? 0 : size),
      frozen: part.frozen + (frozen ? size : 0),
    });
  }
  return [...parts.values()];
}

/** The first component of a head's name, which may have layers of its own kind, and the last telling one of others. */
function moduleOf(name: string, isHead: boolean): string {
  const path = name.replace(/(\.dense)?\.(weight|bias)$/, '').split('.');
  return isHead ? path[0] : path.at(path.at(-1) === 'linear' ? -2 : -1)!;
}

/** The gradient of a loss by the name of a parameter that is not frozen, on the host. */
export type GradientOf = (parameter: string) => Float32Array;

/**
 * Gradients of the losses by themselves, before their weights: one forward pass, and a backward pass for each of `losses`, by default all.
 * The model's own gradients are overwritten; its values stay. Between two training steps, all commands are given before the first await, so
 * that the next step may follow at once.
 */
export async function lossGradients(
  model: Model,
  inputs: Inputs,
  losses: readonly string[] = model.objectives.map(({ name }) => name),
): Promise<Readonly<Record<string, GradientOf>>> {
  const { device, parameters } = model;
  const arenas = parameters.arenas.filter(({ rate }) => rate !== null);
  const reading: Promise<ArrayBuffer[]>[] = [];
  device.step(() => {
    const pass = trainingPass(model, tensorsOf(device, inputs));
    for (const name of losses) {
      parameters.zeroGradients();
      const { loss } = pass.objectives[name];
      // Every parameter that it reaches may be frozen: then its gradients stay zero.
      if (loss.wantsGradient) backward(loss);
      const ranges = arenas.map(({ gradients }) => gradients());
      reading.push(Promise.all(ranges.map((range) => device.read(range, range.byteLength))));
    }
  });
  const places = arenas.flatMap(({ tensors }, arena) =>
    tensors.map(({ name, firstElement, size }) => ({ name, arena, firstElement, size })),
  );
  const read = await Promise.all(reading);
  return Object.fromEntries(
    losses.map((loss, i) => [
      loss,
      (parameter: string) => {
        const own = places.filter(({ name }) => name === parameter);
        const [first, ...others] = own.map(
          ({ arena, firstElement, size }) => new Float32Array(read[i][arena], bytesPerElement.f32 * firstElement, size),
        );
        return others.length === 0 ? first : joinNumbers([first, ...others]);
      },
    ]),
  );
}
