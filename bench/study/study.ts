/**
 * A study is a value: a question, and the variants of a training run that are compared to answer it. All its runs begin from
 * one vision-language model and have equal steps and, seed by seed, equal demonstrations and scenes. A new study is a file
 * like insulation.ts and a line in index.ts.
 */
import type { Preset } from '../../model/training/presets.ts';
import { recommendedSettings } from '../../model/training/recommended.ts';
import { type RunSettings, runSettings } from '../../model/training/run-settings.ts';

export interface Variant {
  readonly name: string;
  readonly meaning: string;
  readonly settings: Partial<RunSettings>;
  /** The name of the variant that this one differs from by one setting: its curves have the same colour, dashed. */
  readonly beside?: string;
}

export interface Study {
  /** The word after `insula study`. */
  readonly name: string;
  readonly title: string;
  /** One sentence, which the table answers. */
  readonly question: string;
  /** Notes that a reader of the table needs. */
  readonly remark: string;
  readonly variants: readonly Variant[];
  /** Training steps of a run, seeds of a variant, and unseen scenes in which the policy of a run acts. */
  readonly steps: number;
  readonly seeds: number;
  readonly scenes: number;
}

/** One run of a study: everything that determines it but its start. */
export interface StudyRun {
  readonly study: string;
  readonly variant: string;
  readonly settings: RunSettings;
  readonly scenes: number;
  /** Scenes of the frames that the questions are about. */
  readonly questionScenes: number;
}

/**
 * All runs of a study, seed by seed, so that a part of them already compares all variants. Settings that a variant leaves open are
 * those of `insula train`, but that no run has questions; `data` are settings that name data sets.
 */
export function runsOf(study: Study, preset: Preset, data?: Partial<RunSettings>): StudyRun[] {
  const { name, variants, steps, seeds, scenes } = study;
  const complete = data ? runSettings : recommendedSettings;
  return Array.from({ length: seeds }, (_, seed) =>
    variants.map((variant) => ({
      ...{ study: name, variant: variant.name, scenes, questionScenes: 50 },
      settings: complete({ preset, from: preset.name, cotrain: 0, ...variant.settings, ...data, steps, seed }),
    })),
  ).flat();
}
