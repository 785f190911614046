/** Linear warm-up to `peak`, then cosine decay to a tenth of it at `steps`. `step` counts from 0. */
export function learningRateAt(
  step: number,
  { peak, warmUpSteps, steps }: { peak: number; warmUpSteps: number; steps: number },
): number {
  if (step < warmUpSteps) return (peak * (step + 1)) / warmUpSteps;
  const progress = Math.min(1, (step - warmUpSteps) / Math.max(1, steps - warmUpSteps));
  return peak * (0.1 + 0.45 * (1 + Math.cos(Math.PI * progress)));
}
