/** Checks of encoders, memory and cross-attention. */
import { quote } from '../../engine/files/errors.ts';
import { blockNamed, isMemory, type ModelConfiguration, memoryOf } from './configuration.ts';

/** The reason why the memory of a configuration cannot be made or read; null if it can. The names in its blocks and edges are known. */
export function memoryComplaint(configuration: ModelConfiguration): string | null {
  return blockComplaint(configuration) ?? expertComplaint(configuration) ?? edgeComplaint(configuration);
}

function blockComplaint({ experts, blocks, edges, objectives, history }: ModelConfiguration): string | null {
  const memory = blocks.find((block) => isMemory({ experts }, block));
  if (memory && history?.interleaved)
    return `block ${quote(memory.name)} is memory, and history is interleaved; memory is read within a control step`;
  const read = edges.filter(({ edge }) => edge.mask !== 'none');
  if (blocks.length > 0 && blocks.every((block) => isMemory({ experts }, block)))
    return 'all of its blocks are memory, and nothing reads them';
  for (const { name, input } of blocks.filter(({ memory }) => memory)) {
    const what = `block ${quote(name)} is memory, whose rows run through no expert`;
    if (input !== 'images') return `${what}, and holds ${input}; only images can be memory`;
    const own = read.find(({ query }) => query === name);
    if (own) return `${what}, and reads ${quote(own.key)}`;
    if (!read.some(({ key }) => key === name)) return `${what}, and no block reads it`;
    const objective = objectives.find((other) => 'rows' in other && 'block' in other.rows && other.rows.block === name);
    if (objective) return `${what}, and objective ${quote(objective.name)} reads them`;
  }
  return null;
}

function edgeComplaint(configuration: ModelConfiguration): string | null {
  const { experts, edges } = configuration;
  const factors = new Map<string, string>();
  for (const { query, key, edge } of edges) {
    if (edge.mask === 'none') continue;
    const [reader, read] = [query, key].map((name) => blockNamed(configuration, name));
    const what = `${quote(query)} reads ${quote(key)}`;
    if (isMemory(configuration, reader)) {
      if (read.memory) return `${what}, which is memory, and encoder ${quote(reader.weights)} reads none`;
      if (!isMemory(configuration, read)) return `${what}, which runs after encoder ${quote(reader.weights)}`;
    } else if (isMemory(configuration, read)) {
      if (!experts[reader.weights].crossAttention)
        return `${what}, which is memory, and expert ${quote(reader.weights)} has no crossAttention`;
      const pair = JSON.stringify([reader.weights, key]);
      const own = `keyGradient ${edge.keyGradient} and valueGradient ${edge.valueGradient}`;
      const other = factors.get(pair) ?? own;
      if (other !== own)
        return `${what} with ${own}, and another block of expert ${quote(reader.weights)} with ${other}; they share its keys and values`;
      factors.set(pair, own);
    }
  }
  return null;
}

function expertComplaint(configuration: ModelConfiguration): string | null {
  const { experts, blocks, edges } = configuration;
  for (const [name, { encoder, crossAttention }] of Object.entries(experts)) {
    const what = `expert ${quote(name)}`;
    if (encoder) {
      if (crossAttention) return `${what} is an encoder, which reads no memory, and has crossAttention`;
      const own = blocks.filter(({ weights }) => weights === name);
      const noisy = own.find(({ input }) => input === 'noisyActions');
      if (noisy) return `${what} is an encoder, which runs once, and block ${quote(noisy.name)} holds noisy actions`;
      const isRead = edges.some(
        ({ query, key, edge }) =>
          edge.mask !== 'none' &&
          blockNamed(configuration, key).weights === name &&
          blockNamed(configuration, query).weights !== name,
      );
      if (!isRead) return `${what} is an encoder, and no block of another expert reads it`;
    } else if (crossAttention) {
      const { every } = crossAttention;
      if (!Number.isInteger(every) || every < 1)
        return `${what} has cross-attention every ${every} layers; expected a positive integer`;
      const memory = memoryOf(configuration, name);
      if (memory.length === 0)
        return `${what} has crossAttention, and none of its blocks reads memory: an encoder, or images`;
      const other = memory.find(({ weights }) => experts[weights].width !== experts[memory[0].weights].width);
      if (other) return `${what} reads memory ${quote(memory[0].name)} and ${quote(other.name)}, which differ in width`;
    }
  }
  return null;
}
