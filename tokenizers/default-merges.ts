/**
 * Merges of the default vocabulary in the order they were learned, in GPT-2's characters (`Ġ` is a space, `Ċ` a
 * line feed). Written by default-merges-node.ts from the language of the built-in world.
 */
export const defaultMerges: readonly string[] = `
Ġ t  h e  Ġt he  Ġ b  i n  Ġ 1  t a  ; Ċ  k :  s k:  t e  o n  Ġ 2  c t  i on  A ct  S ta  T a  te :  ion :  Act ion:
Sta te:  Ta sk:  Ġb in  Ġ p  u b  Ġb l  Ġ c  a n  e r  Ġ in  r e  c k  Ġp u  Ġ State:  S ub  ta sk:  Sub task:  l l  Ġ o
Ġt o  e n  r an  w h  Ġ wh  r o  l e  t o  Ġin to  Ġpu t  re d  Ġ red  Ġwh i  o w  Ġ i  y e  a ck  g e  g re  p le
r ple  u e  ll ow  ran ge  ye llow  gre en  Ġ yellow  Ġ green  Ġbl ack  Ġbl ue  Ġpu rple  Ġo range  Ġwhi te  s s  a ll
d er  l in  o ck  y lin  ub e  ro ss  ylin der  Ġb all  Ġp l  Ġbl ock  Ġc ube  Ġc ross  Ġc ylinder  a c  Ġpl ac  Ġplac e
w er  Ġ en  Ġ 3  Ġ 4  Ġ 5  Ġ 6  Ġ 7  Ġ 8  Ġ 9  Ġ1 0  Ġ1 1  Ġ1 2  Ġ1 3  Ġ1 4  Ġ1 5  Ġ1 6  Ġ1 7  Ġ1 8  Ġ1 9  Ġ2 0  Ġ2 1
Ġ2 2  Ġ2 3  Ġ2 4  s wer  an swer  Ġi s  Ġ d  Ġ an  f t  Ġ a  Ġ m  Ġan d  i ck  Ġb r  Ġ2 5  Ġ u  l i  Ġu p  Ġ li  f er
o v  s fer  v er  Ġt ran  in g  Ġp ick  Ġo ver  ro p  Ġi t  Ġd rop  Ġm ov  Ġbr ing  Ġli ft  Ġtran sfer  Ġmov e  Ġ on
a t  Ġo f  c h  r a  Ġ r  Ġ le  b j  e ct  g h  i gh  Ġo bj  Ġwh at  Ġwhi ch  Ġr igh  Ġle ft  Ġobj ect  Ġrigh t  Ġ s
u t  t on  ra wer  ut ton  Ġb utton  Ġd rawer  Ġ h  Ġ f  a b  a p  c ap  l o  o in  o lo  p oin  r on  t ion  u r  Ġt ab
Ġthe re  Ġc olo  an y  wh at  Ġa t  Ġa re  Ġm any  Ġobject s  Ġh ow  Ġf ron  cap tion  poin t  Ġtab le  Ġcolo ur
Ġfron t  i t  i e  p he  u s  w it  Ġt ra  in er  ta iner  on tainer  Ġc an  Ġc ontainer  Ġpl us  Ġd ie  Ġbr ick  Ġs phe
Ġs wit  Ġtra y  Ġsphe re  Ġswit ch  Ġ 0  Ġ2 6  Ġ2 7  Ġ2 8  Ġ2 9  Ġ3 0  Ġ3 1  Ġ3 2  Ġ3 3  Ġ3 4  Ġ3 5  Ġ3 6  Ġ3 7  Ġ3 8
Ġ3 9  Ġ4 0  Ġ4 1  Ġ4 2  Ġ4 3  Ġ4 4  Ġ4 5  Ġ4 6  Ġ4 7  Ġ4 8  Ġ4 9  Ġ5 0  Ġ5 1  Ġ5 2  Ġ5 3  Ġ5 4  Ġ5 5  Ġ5 6  Ġ5 7  Ġ5 8
Ġ5 9  Ġ6 0  Ġ6 1  Ġ6 2  Ġ6 3  Ġ6 4  Ġ6 5  Ġ6 6  Ġ6 7  Ġ6 8  Ġ6 9  Ġ7 0  Ġ7 1  Ġ7 2  Ġ7 3  Ġ7 4  Ġ7 5  Ġ7 6  Ġ7 7  Ġ7 8
Ġ7 9  Ġ8 0  Ġ8 1  Ġ8 2  Ġ8 3  Ġ8 4  Ġ8 5  Ġ8 6  Ġ8 7  Ġ8 8  Ġ8 9  Ġ9 0  Ġ9 1  Ġ9 2  Ġ9 3  Ġ9 4  Ġ9 5  Ġ9 6  Ġ9 7  Ġ9 8
Ġ9 9  Ġ10 0  Ġ10 1  Ġ10 2  Ġ10 3  Ġ10 4  Ġ10 5  Ġ10 6  Ġ10 7  Ġ10 8  Ġ10 9  Ġ11 0  Ġ11 1  Ġ11 2  Ġ11 3  Ġ11 4  Ġ11 5
Ġ11 6  Ġ11 7  Ġ11 8  Ġ11 9  Ġ12 0  Ġ12 1  Ġ12 2  Ġ12 3  Ġ12 4  Ġ12 5  Ġ12 6  Ġ12 7  Ġ12 8  Ġ12 9  Ġ13 0  Ġ13 1  Ġ13 2
Ġ13 3  Ġ13 4  Ġ13 5  Ġ13 6  Ġ13 7  Ġ13 8  Ġ13 9  Ġ14 0  Ġ14 1  Ġ14 2  Ġ14 3  Ġ14 4  Ġ14 5  Ġ14 6  Ġ14 7  Ġ14 8  Ġ14 9
Ġ15 0  Ġ15 1  Ġ15 2  Ġ15 3  Ġ15 4  Ġ15 5  Ġ15 6  Ġ15 7  Ġ15 8  Ġ15 9  Ġ16 0  Ġ16 1  Ġ16 2  Ġ16 3  Ġ16 4  Ġ16 5  Ġ16 6
Ġ16 7  Ġ16 8  Ġ16 9  Ġ17 0  Ġ17 1  Ġ17 2  Ġ17 3  Ġ17 4  Ġ17 5  Ġ17 6  Ġ17 7  Ġ17 8  Ġ17 9  Ġ18 0  Ġ18 1  Ġ18 2  Ġ18 3
Ġ18 4  Ġ18 5  Ġ18 6  Ġ18 7  Ġ18 8  Ġ18 9  Ġ19 0  Ġ19 1  Ġ19 2  Ġ19 3  Ġ19 4  Ġ19 5  Ġ19 6  Ġ19 7  Ġ19 8  Ġ19 9  Ġ20 0
Ġ20 1  Ġ20 2  Ġ20 3  Ġ20 4  Ġ20 5  Ġ20 6  Ġ20 7  Ġ20 8  Ġ20 9  Ġ21 0  Ġ21 1  Ġ21 2  Ġ21 3  Ġ21 4  Ġ21 5  Ġ21 6  Ġ21 7
Ġ21 8  Ġ21 9  Ġ22 0  Ġ22 1  Ġ22 2  Ġ22 3  Ġ22 4  Ġ22 5  Ġ22 6  Ġ22 7  Ġ22 8  Ġ22 9  Ġ23 0  Ġ23 1  Ġ23 2  Ġ23 3  Ġ23 4
Ġ23 5  Ġ23 6  Ġ23 7  Ġ23 8  Ġ23 9  Ġ24 0  Ġ24 1  Ġ24 2  Ġ24 3  Ġ24 4  Ġ24 5  Ġ24 6  Ġ24 7  Ġ24 8  Ġ24 9  Ġ25 0  Ġ25 1
Ġ25 2  Ġ25 3  Ġ25 4  Ġ25 5  p en  Ġo pen  s h  Ġp re  Ġpu ll  Ġpu sh  ow n  Ġd own  Ġpre ss  b l  d e  Ġo ut  li de
Ġs lide  Ġh it  b in  b all  b utton  c ube  c ross  c ylinder  d rawer  i te  n o  o range  p u  wh ite  ye s  bl ack
bl ue  bl ock  pu rple
`
  .trim()
  .split(/ {2}|\n/);
