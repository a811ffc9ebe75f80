/* Wake tokens: enqueue pushes a hint token if the list is shorter than CAP; an idle worker claims (never
 * blocking), then waits for a token with BLPOP. One worker may die after it popped a token, one lives on.
 * Property: a ready task is claimed in the end; a deadlock is reported as an invalid end state.
 *
 *   -DTIMEOUT  the wait is bounded (BLPOP time-out, or a token re-armed by tick)     (what we build)
 *   -DCHAIN    a claim re-arms a token while tasks are ready (BullMQ's way)
 *
 * With none of them, or -DCHAIN alone, there must be a counterexample ("invalid end state").
 */
#ifndef CAP
#define CAP 1
#endif
byte ready=0, wake=0, claimed=0, enq=0, crashes=0;
#define NT 2 /* tasks */
proctype producer(){ do :: atomic{ enq<NT -> enq++; ready++; if :: wake<CAP -> wake++ :: else fi } :: enq==NT -> break od }
proctype worker(){
 do
 :: atomic{ ready>0 -> ready--; claimed++
#ifdef CHAIN
      ; if :: ready>0 && wake<CAP -> wake++ :: else fi
#endif
    }
 :: ready==0 ->
end:  if
   :: atomic{ wake>0 -> wake--; if :: crashes<1 -> crashes++; goto dead :: true fi }
#ifdef TIMEOUT
   :: timeout -> skip
#endif
   :: claimed==NT -> break
   fi
 od;
dead: skip
}
proctype spareworker(){
 do
 :: atomic{ ready>0 -> ready--; claimed++
#ifdef CHAIN
      ; if :: ready>0 && wake<CAP -> wake++ :: else fi
#endif
    }
 :: ready==0 ->
   if
   :: atomic{ wake>0 -> wake-- }
#ifdef TIMEOUT
   :: timeout -> skip
#endif
   :: claimed==NT -> break
   fi
 od }
init{ atomic{ run producer(); run worker(); run spareworker() } }
