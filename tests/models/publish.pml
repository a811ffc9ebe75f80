/* Publishing: ticket, look at the source tag, grant (owner, ticket, lock), PUT, release, look again.
 * True to common/queue/{enqueue,ticket,publish,unlock}.lua and design "Publishing exactly".
 *
 * The source tag moves from version to version; each version makes an event, which arrives at any time after, in any
 * order.  NW workers run tasks; one attempt may lose its lease and go on (a zombie), one may die anywhere, and one
 * PUT may be applied by the registry long after its client gave up.
 * Asserted: who is granted is the live holder; when nothing more can happen, the target carries what the source
 * tag names; and with three contents, a PUT that is answered never puts an older version over a newer one.  (With A,
 * B, A it may for a moment: the task of A looks when the tag is back at A, after B's took a later ticket; B's looks
 * again before it ends, and has A published once more.)
 *
 *   default      contents A, B, A          -DDISTINCT   three contents
 * Must give a counterexample, each takes one guard out:
 *   -DNOOWNER    publish does not compare the nonce
 *   -DNOTICKET   publish does not compare tickets
 *   -DNOLOCK     publish takes no lock
 *   -DNOREPAIR   who takes over a lock does not look at the target again
 *   -DNODIRTY    only the one that takes over looks again, not those that publish soon after it
 *   -DNOREREAD   the source tag is not read again before finish
 *   -DJOINTICKET enqueue joins a task that has looked at the source tag
 */
#ifndef NW
#define NW 2
#endif
#ifndef NT
#define NT 4
#endif
#ifndef MAXV
#define MAXV 3
#endif
#ifndef MAXEXP
#define MAXEXP 0
#endif
#ifndef MAXCRASH
#define MAXCRASH 0
#endif
#ifndef MAXLATE
#define MAXLATE 0
#endif
#define NONE 0
#define READY 1
#define RUN 2
#define DONE 3
#ifdef DISTINCT
#define C(v) (v)
#define MONOTONE assert(v >= shownv)
#else
#define C(v) ((v) == 2 -> 2 : 1)
#define MONOTONE skip
#endif
#ifdef NOOWNER
#define OWNED(t, n) true
#else
#define OWNED(t, n) (own[t] == n)
#endif
#ifdef NOTICKET
#define LATER(my) false
#else
#define LATER(my) (granted > my)
#endif
#ifdef NOLOCK
#define FREE(t, n) true
#else
#define FREE(t, n) (lock == 0 || lock == n || hid == t + 1)
#endif
#ifdef NODIRTY
#define DIRTY false
#else
#define DIRTY ((dirty & latemask) != 0)
#endif
#ifdef JOINTICKET
#define LOOKED(t) false
#else
#define LOOKED(t) tk[t]
#endif

byte st[NT], cont[NT], own[NT], nt, nonces;
bool tk[NT], crit[NT], nospace;
byte dk[4];			    /* content -> task + 1 */
byte last, granted, pubid, lock, held, hid; /* pub: and lock: of the one target */
bool lockdead;			    /* its holder will never release it: it expires */
byte dirty;			    /* late PUTs that may undo what is published now */
byte src = 1, tgt, shownv;	    /* the registry */
byte latec[2], latemask, nlate, nexp, ncrash;

inline make(c)
{
	if
	:: nt < NT -> st[nt] = READY; cont[nt] = c; dk[c] = nt + 1; nt++
	:: else -> nospace = true
	fi
}
inline enqueue(c)
{
	if
	:: dk[c] != 0 && (st[dk[c] - 1] == READY || (st[dk[c] - 1] == RUN && !LOOKED(dk[c] - 1))) -> skip
	:: dk[c] != 0 && st[dk[c] - 1] == DONE && pubid == dk[c] ->
		if
		:: skip		/* fresh: joined */
		:: make(c)	/* no longer fresh */
		fi
	:: else -> make(c)
	fi
}
inline leave(t, s) { st[t] = s; own[t] = 0; tk[t] = false; crit[t] = false }
inline die(t, n) /* the lease runs out; whoever comes next claims it */
{
	ncrash++;
	if :: own[t] == n -> leave(t, READY) :: else fi;
	if :: lock == n -> lockdead = true :: else fi
}

proctype event(byte v) { atomic { src >= v && !nospace -> enqueue(C(v)) } }
proctype mover() { do :: atomic { src < MAXV && !nospace -> src++ } :: src == MAXV -> break od }

proctype worker()
{
	byte t, n, my, v, mine;
	bool over;
idle:
	atomic {
		if
		:: !nospace && st[0] == READY -> t = 0
		:: !nospace && st[1] == READY -> t = 1
		:: !nospace && st[2] == READY -> t = 2
#if NT > 3
		:: !nospace && st[3] == READY -> t = 3
#endif
		fi;
		nonces++; n = nonces; st[t] = RUN; own[t] = n;
		last++; my = last; tk[t] = true /* ticket */
	}
	v = src; /* HEAD */
	if
	:: C(v) != cont[t] -> /* superseded: the new digest first, then the end */
		atomic { enqueue(C(v)) }
		goto finish
	:: C(v) == cont[t]
	fi;
ask:
	atomic {
		(!OWNED(t, n) || LATER(my) || FREE(t, n)) -> /* else BUSY: asks again */
		if
		:: !OWNED(t, n) -> goto again
		:: OWNED(t, n) && LATER(my) -> goto look
		:: OWNED(t, n) && !LATER(my) ->
			assert(own[t] == n);
			granted = my; pubid = t + 1;
#ifndef NOLOCK
			over = (held != 0 && held != n) || DIRTY;
			if :: over -> dirty = dirty | latemask :: else fi;
			lock = n; held = n; hid = t + 1; lockdead = false;
#endif
			mine = latemask; crit[t] = true
		fi
	}
	if
	:: atomic { ncrash < MAXCRASH -> die(t, n); goto again } /* never sent */
	:: atomic { nlate < MAXLATE ->			       /* sent, and nobody waits for the answer */
		latec[nlate] = cont[t]; latemask = latemask | (1 << nlate); nlate++;
		die(t, n); goto again }
	:: skip; /* sent */
		atomic { /* applied and answered */
			MONOTONE;
			tgt = cont[t]; shownv = v
		}
	fi;
	atomic { /* unlock */
		crit[t] = false;
		if :: lock == n -> lock = 0 :: else fi;
		if :: held == n -> held = 0; hid = 0 :: else fi
	}
	if
	:: atomic { ncrash < MAXCRASH -> die(t, n); goto again }
	:: skip
	fi;
#ifndef NOREPAIR
	if
	:: over ->
		atomic {
			(latemask & mine) == 0 -> /* 60 s later */
			if :: tgt != cont[t] -> goto ask :: else fi
		}
	:: else
	fi;
#endif
look:
#ifndef NOREREAD
	atomic { v = src; if :: C(v) != cont[t] -> enqueue(C(v)) :: else fi };
#endif
finish:
	atomic { if :: own[t] == n -> leave(t, DONE) :: else fi }
again:
	atomic { n = 0; my = 0; v = 0; mine = 0; over = false; t = 0; goto idle }
}

proctype redis()
{
end:
	do
	:: atomic { lock != 0 && lockdead -> lock = 0; lockdead = false }
	:: atomic { (latemask & 1) != 0 -> tgt = latec[0]; latemask = latemask & 254 }
	:: atomic { (latemask & 2) != 0 -> tgt = latec[1]; latemask = latemask & 253 }
	/* a lease that runs out under a live worker; not while it may PUT: a grant ends at 0.8 of the lease */
	:: atomic { nexp < MAXEXP && st[0] == RUN && !crit[0] -> nexp++; leave(0, READY) }
	od
}
proctype monitor() { timeout -> assert(nospace || tgt == C(src)) }
init
{
	atomic {
		byte i;
		run redis(); run mover(); run monitor();
		enqueue(C(1));
		for (i : 2 .. MAXV) { run event(i) }
		for (i : 1 .. NW) { run worker() }
	}
}
