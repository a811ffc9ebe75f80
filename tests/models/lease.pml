/* The lease of one task: NW workers, one Redis with asynchronous durability.
 * True to common/queue/{claim,heartbeat,finish,tick}.lua: a claim is sent again with its nonce until it is answered, and
 * so is a finish; an attempt ends with `done` or with another try (retry, release, wait, crashed: ready again here);
 * a lease may run out at any moment, which covers every clock skew, pause, SIGSTOP and partition.
 *
 *   default         the fence is the claim's nonce                  (what the scripts compare)
 *   -DFENCE_COUNTER the fence is a counter per task                 must give a counterexample with -DFAILOVER
 *   -DNOFENCE       the owner is not compared                       must give a counterexample
 *   -DNOREPLAY      a finish sent again is not known as such        must give a counterexample
 *   -DKEEPOWNER     expiry leaves the owner in place                must give a counterexample
 *   -DFAILOVER      Redis may fall back to any older persisted state
 *
 * Asserted: who passes the fence is the one live holder (I2); a task is done once (I3); who was told STALE was
 * not the last to be accepted; a persisted end is never undone.  LTL (without failover): once done, always done.
 */
#ifndef NW
#define NW 2
#endif
#ifndef MAXEXP
#define MAXEXP 2
#endif
#ifndef MAXNONCE
#define MAXNONCE 4
#endif
#ifndef MAXFO
#define MAXFO 1
#endif
#define READY 1
#define RUN 2
#define DONE 3
#define NOBODY 255
byte st = READY, own, tok, fn, fo, holder = NOBODY;	   /* Redis: live */
byte pst = READY, pown, ptok, pfn, pfo, pholder = NOBODY; /* Redis: persisted */
byte nexp, nfo, nonces, crashes;
bool donep; /* an end was persisted */
byte lacc, placc; /* ghost: whose finish was accepted last */

#ifdef NOFENCE
#define MATCH(n, k) (st == RUN)
#else
#ifdef FENCE_COUNTER
#define MATCH(n, k) (st == RUN && tok == k)
#else
#define MATCH(n, k) (st == RUN && own == n)
#endif
#endif
#ifdef NOREPLAY
#define REPLAY(n, oc) false
#else
#define REPLAY(n, oc) (fn == n && fo == oc)
#endif
#ifdef KEEPOWNER
#define CLEAR skip
#define HELD(n) (own == n)
#else
#define CLEAR own = 0
#define HELD(n) (st == RUN && own == n)
#endif

proctype worker(byte me)
{
	byte n, k, oc;
	bool have, conv;
	do
	:: atomic { !have && st != DONE && nonces < MAXNONCE -> nonces++; n = nonces }
claim:
		if
		:: atomic { st == READY && !HELD(n) -> st = RUN; own = n; tok++; holder = me;
			if
			:: k = tok; have = true; conv = false
			:: goto claim /* the reply was lost: the same nonce again */
			fi }
		:: atomic { HELD(n) -> k = tok; have = true; conv = false; assert(holder == me) } /* replay */
		:: atomic { !HELD(n) && st != READY -> n = 0 } /* EMPTY */
		fi
	:: have && !conv -> conv = true /* the conversion; it may be paused here for ever so long */
	:: atomic { have -> /* heartbeat */
		if
		:: MATCH(n, k) -> assert(holder == me)
		:: else -> have = false; n = 0; k = 0
		fi }
	:: atomic { have && conv -> if :: oc = DONE :: oc = READY fi }
finish:
		atomic {
			if
			:: MATCH(n, k) ->
				assert(holder == me);
				st = oc; CLEAR; holder = NOBODY; fn = n; fo = oc; lacc = n
			:: !MATCH(n, k) && REPLAY(n, oc) -> assert(lacc == n)
			:: !MATCH(n, k) && !REPLAY(n, oc) -> assert(lacc != n) /* STALE */
			fi;
			if
			:: have = false; n = 0; k = 0; oc = 0
			:: crashes < 1 -> crashes++; goto finish /* the reply was lost: the same call again */
			fi
		}
	:: atomic { have && crashes < 1 -> crashes++; have = false; n = 0; k = 0 } /* SIGKILL */
	:: st == DONE && !have -> break
	:: nonces >= MAXNONCE && !have -> break
	od
}
proctype redis()
{
	do
	:: atomic { st == RUN && nexp < MAXEXP -> nexp++; st = READY; CLEAR; holder = NOBODY } /* tick */
#ifdef FAILOVER
	:: atomic { pst = st; pown = own; ptok = tok; pholder = holder; pfn = fn; pfo = fo; placc = lacc; /* fsync, replicate */
		if :: st == DONE -> donep = true :: else fi }
	:: atomic { nfo < MAXFO -> nfo++;
		st = pst; own = pown; tok = ptok; holder = pholder; fn = pfn; fo = pfo; lacc = placc;
		assert(!(donep && st != DONE)) }
	:: st == DONE && donep -> break
#else
	:: st == DONE -> break
	:: nexp >= MAXEXP -> break
#endif
	od
}
init
{
	byte i;
	atomic { run redis(); for (i : 1 .. NW) { run worker(i) } }
}
#ifndef FAILOVER
ltl terminal { [] (st == DONE -> [] (st == DONE)) }
#endif
