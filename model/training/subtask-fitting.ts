/** The part of the fitting that subtasks need: what the data have to say, how long it is, and the system that says it. */
import { InputError } from '../../engine/index.ts';
import type { Dataset } from '../data/dataset.ts';
import type { EpisodePart } from '../data/index.ts';
import type { Encoding } from '../policy/encoding.ts';
import { locationStepFor, type SubtaskSettings } from '../policy/subtask.ts';
import { type SubtaskSizes, type System, withSubtask } from '../systems/index.ts';
import type { Preset } from './presets.ts';
import type { RunSettings } from './run-settings.ts';

/** @throws InputError if the data have no subtask of this kind */
export function subtaskSettings(
  { name, cameras, episodes }: Dataset,
  kind: NonNullable<RunSettings['subtask']>,
  { vision }: Preset,
): SubtaskSettings {
  const counts = episodes.flatMap((episode) =>
    episode.places ? Array.from({ length: episode.length }, (_, step) => episode.places!(step).length) : [],
  );
  const places = kind === 'words' ? 0 : counts.reduce((most, own) => Math.max(most, own), 0);
  const lacks: Record<string, boolean> = {
    'pictures to point in': kind !== 'words' && cameras.length === 0,
    'places to point at': kind !== 'words' && places === 0,
    'subtasks in words': kind !== 'places' && !episodes.some((episode) => episode.subtask),
  };
  const lacking = Object.keys(lacks).find((what) => lacks[what]);
  if (lacking !== undefined)
    throw new InputError(
      `--subtask ${kind}: data set "${name}" has no ${lacking}; leave it out, or give --subtask none`,
    );
  return { words: kind !== 'places', places, locationStep: locationStepFor(vision.image) };
}

/** @throws InputError if the system cannot say a subtask before it acts */
export function sayingSystem(system: System, sizes: SubtaskSizes): System {
  const saying = withSubtask(system, sizes);
  if (saying) return saying;
  throw new InputError(
    `--subtask: ${system.name} ${system.history ? 'sees a history, and would have to say one at every step of it' : 'lets its prompt see the actions, so that it cannot say anything first'}; give --subtask none, or choose another --system`,
  );
}

/** Tokens of the longest subtask, at any control step. */
export function longestSubtask({ subtask }: Encoding, parts: readonly EpisodePart[]): number {
  const { words, places } = subtask!.settings;
  const texts = new Set<string>();
  for (const { episode, from, to } of words ? parts : [])
    for (let step = from; step < to; step++) texts.add(episode.subtask?.(step) ?? '');
  const lengths = Array.from(texts, (own) => subtask!.encode({ words: own, places: [] }).length);
  const longest = lengths.reduce((most, own) => Math.max(most, own), 0);
  return Math.max(1, 2 * places + longest);
}
