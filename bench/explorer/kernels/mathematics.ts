/** The mathematics of kernels, for their pages. `@name` is a name of the kernel file: of a binding, a field, a constant or a variable. */
import katex from 'katex';

const { raw } = String;

/** A formula a line; those after the word `backward` are of the gradients. */
const formulas: Readonly<Record<string, string>> = {
  'rms-norm': raw`
    @inverseRoot_t = \frac{1}{\sqrt{\frac{1}{@width} \sum_i @x_{t,i}^2 + @epsilon}}
    @y_{t,i} = @x_{t,i} \, @inverseRoot_t \, (1 + @weight_i)
    backward
    @p_t = @inverseRoot_t^2 \, \frac{1}{@width} \sum_i @dy_{t,i} \, (1 + @weight_i) \, @x_{t,i}
    @dx_{t,i} = @inverseRoot_t \left( @dy_{t,i} \, (1 + @weight_i) - @p_t \, @x_{t,i} \right)
    @dw_i = \sum_t @dy_{t,i} \, @x_{t,i} \, @inverseRoot_t`,
  'layer-norm': raw`
    n_{t,i} = \frac{@x_{t,i} - m_t}{\sqrt{\operatorname{mean}_j (@x_{t,j} - m_t)^2 + @epsilon}}, \quad m_t = \operatorname{mean}_j @x_{t,j}
    @y_{t,i} = n_{t,i} \, @weight_i + @bias_i
    backward
    g_{t,i} = @dy_{t,i} \, @weight_i
    @dx_{t,i} = r_t \left( g_{t,i} - \operatorname{mean}_j g_{t,j} - n_{t,i} \operatorname{mean}_j g_{t,j} n_{t,j} \right)
    @dw_i = \sum_t @dy_{t,i} \, n_{t,i}, \quad @db_i = \sum_t @dy_{t,i}`,
  'adaptive-rms-norm': raw`
    @modulation_b = [\operatorname{scale} \mid \operatorname{shift} \mid \operatorname{gate}], \quad @inverseRoot_t = 1 / \sqrt{\operatorname{mean}_i @x_{t,i}^2 + @epsilon}
    @y_{t,i} = @x_{t,i} \, @inverseRoot_t \, (1 + \operatorname{scale}_{b,i}) + \operatorname{shift}_{b,i}
    \operatorname{out}_{t,i} = @x_{t,i} + \operatorname{gate}_{b,i} \, @branch_{t,i}
    backward
    g_{t,i} = @dy_{t,i} \, (1 + \operatorname{scale}_{b,i}), \quad p_t = @inverseRoot_t^2 \operatorname{mean}_j g_{t,j} \, @x_{t,j}
    @dx_{t,i} = @inverseRoot_t \, (g_{t,i} - p_t \, @x_{t,i})
    \operatorname{dscale}_{b,i} = \sum_t @dy_{t,i} \, @x_{t,i} \, @inverseRoot_t, \quad \operatorname{dshift}_{b,i} = \sum_t @dy_{t,i}
    @dBranch = \operatorname{gate} \cdot \operatorname{dout}, \quad \operatorname{dgate}_{b,i} = \sum_t \operatorname{dout}_{t,i} \, @branch_{t,i}`,
  activation: raw`
    \operatorname{gelu}: \; @y = @x \, s(2u), \quad u = \sqrt{2/\pi} \, (@x + 0.044715 \, @x^3)
    \operatorname{swish}: \; @y = @x \, s(@x), \quad s(z) = \frac{1}{1 + e^{-z}}
    backward
    @dx = f'(@x) \, @dy
    \operatorname{gelu}' = s(2u) + 2 \, @x \, s(2u) \, (1 - s(2u)) \, \frac{du}{dx}
    \operatorname{swish}' = s(@x) + @x \, s(@x) \, (1 - s(@x))`,
  rotary: raw`
    @y_f = @x_f \cos a_i - @x_s \sin a_i, \quad @y_s = @x_s \cos a_i + @x_f \sin a_i
    @cosSin_i = (\cos a_i, \sin a_i), \quad a_i = \operatorname{position} \cdot \operatorname{base}^{-2i/D}
    backward
    @dx_f = @dy_f \cos a_i + @dy_s \sin a_i, \quad @dx_s = @dy_s \cos a_i - @dy_f \sin a_i`,
  softmax: raw`
    @y_{t,i} = \frac{e^{@x_{t,i} - m_t}}{\sum_j e^{@x_{t,j} - m_t}}, \quad m_t = \max_j @x_{t,j}
    backward
    @dx_{t,i} = @forwardY_{t,i} \left( @dy_{t,i} - \sum_j @dy_{t,j} \, @forwardY_{t,j} \right)`,
  embedding: raw`
    @y_t = @scale \cdot @table_{@ids_t}
    backward
    @dTable_v = @scale \sum_{t \,:\, @ids_t = v} @dy_t`,
  'linear-cross-entropy': raw`
    @logits_{r,v} = \sum_i \operatorname{hidden}_{r,i} \, \operatorname{embedding}_{v,i}, \quad @logSumExp_r = \log \sum_v e^{@logits_{r,v}}
    @loss = \sum_r @rowWeight_r \, @mask_r \left( @logSumExp_r - @logits_{r,@targets_r} \right)
    backward
    @dLogits_{r,v} = @dLoss \, @rowWeight_r \left( e^{@logits_{r,v} - @logSumExp_r} - [v = @targets_r] \right)
    \operatorname{dHidden} = @dLogits \; \operatorname{embedding}, \quad \operatorname{dEmbedding} = @dLogits^{\mathsf T} \, \operatorname{hidden}`,
  losses: raw`
    @loss = \frac{\sum_e w_e \, @error(@prediction_e, @target_e)}{W}, \quad W = \max(1, \sum_e w_e)
    w_e = @valid \cdot @dimension \quad \textrm{(0 or 1)}
    backward
    @dPrediction_e = \frac{@dLoss \, w_e}{W} \, @derivative(@prediction_e, @target_e)`,
  matmul: raw`
    @output_{m,n} = \operatorname{epilogue}\left( \sum_k @a_{m,k} \, @b_{k,n} + @bias_n \right)
    backward
    \operatorname{dA} = \operatorname{dOutput} \; @b^{\mathsf T}, \quad \operatorname{dB} = @a^{\mathsf T} \, \operatorname{dOutput}
    \operatorname{dBias}_n = \sum_m \operatorname{dOutput}_{m,n}`,
  attention: raw`
    S_{ij} = f(s \, @query_i \cdot @key_j), \quad @logSumExp_i = \log \sum_j e^{S_{ij}}
    P_{ij} = e^{S_{ij} - @logSumExp_i}, \quad @output_i = \sum_j P_{ij} \, @value_j
    backward
    dP_{ij} = @dOutput_i \cdot @value_j, \quad dS_{ij} = P_{ij} \, (dP_{ij} - \delta_i) \, f', \quad \delta_i = @dOutput_i \cdot @output_i
    @dQuery_i = s \sum_j dS_{ij} \, @key_j
    \operatorname{dKey}_j = s \sum_i dS_{ij} \, @query_i, \quad \operatorname{dValue}_j = \sum_i P_{ij} \, @dOutput_i`,
  'attention-rows': raw`
    @logSumExp_i = \log \sum_a e^{@sliceLogSumExp_{a,i}}
    @output_i = \sum_a e^{@sliceLogSumExp_{a,i} - @logSumExp_i} \, @sliceOutput_{a,i}
    backward
    \delta_i = @dOutput_i \cdot @forwardOutput_i, \quad @gradient = \sum_a @sliceGradient_a`,
  adamw: raw`
    g = @clip \cdot @scale \cdot @gradient
    @firstMoment = \beta_1 \, @firstMoment + (1 - \beta_1) \, g
    @secondMoment = \beta_2 \, @secondMoment + (1 - \beta_2) \, g^2
    @value \mathrel{-}= \eta \left( \frac{@firstMoment / (1 - \beta_1^t)}{\sqrt{@secondMoment / (1 - \beta_2^t)} + @epsilon} + \operatorname{decay} \; @value \right)`,
  'gradient-norms': raw`
    @norms = \sqrt{\sum_i @gradient_i^2}, \quad @clip = \min\left( 1, \frac{@maximumNorm}{@norms} \right)
    \sum_i @gradient_i^2 = 4^{@exponent} \, @squares, \quad @squares = \sum_i (@gradient_i / 2^{@exponent})^2`,
  elementwise: raw`
    \operatorname{add}: \; @y_i = @a_i + @b_c, \quad \operatorname{multiply}: \; @y_i = @a_i \, @b_c
    \operatorname{subtract}: \; @y_i = @a_i - @b_c, \quad \operatorname{scale}: \; @y_i = \operatorname{factor} \; @a_i
    backward
    \operatorname{add}: \; @dA_i = @dy_i, \quad @dB_c = \sum @dy_i
    \operatorname{multiply}: \; @dA_i = @b_c \, @dy_i, \quad @dB_c = \sum @a_i \, @dy_i`,
  reduce: raw`
    \operatorname{sum}: \; @y = \operatorname{scale} \sum_i @x_i, \quad \operatorname{sumRows}: \; @sums_c = \sum_r @matrix_{r,c}
    backward
    @dx_i = \operatorname{scale} \; @dy, \quad @dMatrix_{r,c} = @dSums_c`,
  cast: raw`
    @y = \operatorname{round}(@x) \quad \textrm{to nearest, ties to even}
    backward
    \operatorname{dx} = \operatorname{dy}`,
  flow: raw`
    @noisy_{b,i} = t_b \, @noise_{b,i} + (1 - t_b) \, @actions_{b,i}, \quad \operatorname{target} = @noise - @actions
    @next_i = @x_i + @dt \; @velocity_i
    backward
    \operatorname{dx} = \operatorname{dNext}, \quad \operatorname{dVelocity} = @dt \; \operatorname{dNext}`,
  lstm: raw`
    i, f, o = s(z_i), s(z_f), s(z_o), \quad g = \tanh(z_g), \quad z = @gates
    @next = f \, @cell + i \, g, \quad @hidden = o \tanh(@next)
    backward
    d = @dNext + @dHidden \, o \, (1 - t^2), \quad t = \tanh(@next), \quad @dCell = d \, f
    @dGates = \left[ d \, g \, s'(z_i), \; d \, @cell \, s'(z_f), \; d \, i \, (1 - g^2), \; @dHidden \, t \, s'(z_o) \right]`,
  'patch-embedding': raw`
    @patches_{n,\operatorname{token},(cP+i)P+j} = @images_{n,\operatorname{row} \, P+i,\operatorname{column} \, P+j,c}, \quad P = @side
    backward
    @dImages_{n,y,x,c} = @dPatches_{n,\operatorname{token},(cP+i)P+j}`,
  pad: raw`
    @y_{t,i} = @x_{t,i} \; \textrm{for} \; i < \min(@width, @newWidth), \; \textrm{else} \; 0
    backward
    \textrm{the same map from} \; @newWidth \; \textrm{to} \; @width`,
  tokens: raw`
    \operatorname{concatenate}: \; @outerOut_{b,\,t + @start} = @inner_{b,t}
    \operatorname{slice}: \; @innerOut_{b,t} = @outer_{b,\,t + @start}
    backward
    \textrm{each is the other's, with zeros outside of the slice}`,
  'token-cache': raw`
    @cache_{b,\,@start + t} = @rows_{b,t}`,
  'weight-average': raw`
    @average = @decay \; @average + (1 - @decay) \, @value`,
};

interface Mathematics {
  readonly forward: readonly string[];
  readonly backward: readonly string[];
}

/** The formulas of a kernel file; its siblings for other hardware (`matmul.software`) have those of the file that they are siblings of. */
export function mathematicsOf(kernel: string): Mathematics | null {
  const own = formulas[kernel] ?? formulas[kernel.split('.')[0]];
  if (own === undefined) return null;
  const lines = own.trim().split(/\n\s*/);
  const border = lines.includes('backward') ? lines.indexOf('backward') : lines.length;
  return { forward: lines.slice(0, border), backward: lines.slice(border + 1) };
}

const NAME = /@([A-Za-z]+)/g;

/** The names of the kernel file that the formulas use. */
export function namesIn({ forward, backward }: Mathematics): string[] {
  return [...new Set([...forward, ...backward].flatMap((own) => [...own.matchAll(NAME)].map(([, name]) => name)))];
}

/** A formula as MathML. */
export function markupOf(formula: string): string {
  return katex.renderToString(formula.replaceAll(NAME, raw`\texttt{$1}`), { output: 'mathml', displayMode: true });
}
