/** The vision-language models that come with Insula, by the name of the preset that they belong to. */
export const pretrainedNames = ['tiny', 'small'] as const;

/** The file of a shipped model; null for any other name. */
export function pretrainedUrl(name: string): URL | null {
  const known = pretrainedNames.find((own) => own === name);
  return known === undefined ? null : new URL(`./${known}.safetensors`, import.meta.url);
}
