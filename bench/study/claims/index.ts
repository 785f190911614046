/** The papers' claims that small models can test, by number, and four of our own. */
import type { Claim } from './claim.ts';
import { insulationClaims } from './insulation.ts';
import { structureClaims } from './structures.ts';

const place = ({ number }: Claim) => (/\d/.test(number) ? Number.parseInt(number, 10) : 100 + number.charCodeAt(0));

export const claims: readonly Claim[] = [...insulationClaims, ...structureClaims].sort((a, b) => place(a) - place(b));
