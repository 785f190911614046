/** The measurements of `insula inspect`, as lines and as sections of a page. */
import { aligned } from '../bench/measure/table.ts';
import { type Finding, findingSection, findingTable } from '../model/report/inspect-page.ts';
import type { Section } from '../model/report/page.ts';
import type { Context } from './command.ts';
import type { Inspected, SubjectValues } from './inspect-subject.ts';
import type { Options } from './options.ts';

export interface Measured {
  readonly json: Readonly<Record<string, unknown>>;
  /** The words for what it measured on, if that is not the batch. */
  readonly examples?: string;
  readonly findings?: readonly Finding[];
  /** Lines after those of the findings. */
  readonly lines?: readonly string[];
  /** Sections after those of the findings, made on demand. */
  sections?(): Section[] | Promise<Section[]>;
}

export type MeasurementContext = Pick<Context, 'progress' | 'signal'>;

/** One of the measurements of `insula inspect`; the flag of its name asks for it. */
export interface Measurement {
  readonly help: string;
  /** Whether it is about pictures and words, and refuses random observations. */
  readonly needsReal?: boolean;
  /** Options of its own. */
  readonly options?: Options;
  measure(inspected: Inspected, values: SubjectValues, context: MeasurementContext): Promise<Measured>;
}

export const linesOf = ({ findings = [], lines = [] }: Measured): string[] => [
  ...findings.flatMap((own) => [
    own.about,
    ...(own.rows.length > 0 ? aligned(findingTable(own), 2) : []),
    ...own.notes,
    '',
  ]),
  ...lines,
];

export const sectionsOf = async ({ findings = [], sections = () => [] }: Measured): Promise<Section[]> => [
  ...findings.map(findingSection),
  ...(await sections()),
];
