/** The studies of `insula study`. */
import { insulation } from './insulation.ts';
import type { Study } from './study.ts';

export const studies: readonly Study[] = [insulation];
