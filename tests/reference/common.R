# Shared by ml.R and emmeans.R: reading the data, fitting to the true optimum, writing JSON.
suppressPackageStartupMessages({
  library(lme4); library(lmerTest); library(emmeans); library(glmmTMB)
  library(jsonlite); library(parallel); library(numDeriv)
})
invisible(Sys.setlocale("LC_COLLATE", "C"))          # factor levels sorted by code point
options(contrasts = c("contr.treatment", "contr.poly"), warn = 1)

versions <- function() {
  p <- c("lme4", "lmerTest", "glmmTMB", "emmeans", "MASS", "Matrix", "numDeriv", "minqa", "nloptr", "TMB", "jsonlite")
  c(list(R = as.character(getRversion())), setNames(lapply(p, function(x) as.character(packageVersion(x))), p))
}

# ---- data -------------------------------------------------------------------------------------
read_dataset <- function(dir, name) {
  f <- file.path(dir, paste0(name, ".csv"))
  if (!file.exists(f)) f <- file.path(dir, paste0("pymer4_", name, ".csv"))
  read.csv(f, na.strings = c("", "NA"), stringsAsFactors = FALSE, check.names = FALSE)
}
contr_fun <- c(helmert = "contr.helmert", sum = "contr.sum", poly = "contr.poly",
               treatment = "contr.treatment")
prepare <- function(dir, case) {
  d <- read_dataset(dir, case$dataset)
  for (v in names(case$rename)) names(d)[names(d) == case$rename[[v]]] <- v
  for (v in names(case$derive)) d[[v]] <- eval(parse(text = case$derive[[v]]), d)
  for (v in names(d)) if (is.character(d[[v]]) || is.logical(d[[v]])) d[[v]] <- factor(d[[v]])
  for (v in case$factors) d[[v]] <- factor(d[[v]])
  for (v in case$ordered) d[[v]] <- factor(d[[v]], ordered = TRUE)
  for (v in names(case$contrasts)) {
    if (is.ordered(d[[v]])) d[[v]] <- factor(d[[v]], ordered = FALSE)
    contrasts(d[[v]]) <- contr_fun[[case$contrasts[[v]]]]
  }
  d
}

# ---- an optimiser that does not stop before the optimum -------------------------------------------
# Several derivative-free and quasi-Newton passes from two starts, then Newton steps with Richardson derivatives.
.last <- new.env()
polish <- function(fn, par, lower, upper, control) {
  k <- length(par)
  safe <- function(p) { v <- tryCatch(fn(p), error = function(e) NA_real_); if (is.finite(v)) v else 1e10 }
  safe_in <- function(p) safe(pmax(p, lower))
  run <- list(
    bobyqa = function(p) { r <- minqa::bobyqa(p, safe, lower, upper,
                control = list(rhobeg = max(1e-3, min(0.2, 0.2 * max(abs(p)))), rhoend = 1e-9, maxfun = 20000)); list(r$par, r$fval) },
    nlminb = function(p) { r <- nlminb(p, safe, lower = lower, upper = upper,
                control = list(iter.max = 2000, eval.max = 5000, rel.tol = 1e-14, x.tol = 1e-12)); list(r$par, r$objective) },
    nlopt  = function(p) { r <- nloptr::nloptr(p, safe, lb = lower, ub = upper, opts = list(algorithm = "NLOPT_LN_BOBYQA",
                xtol_rel = 1e-12, xtol_abs = rep(1e-12, k), ftol_rel = 1e-15, ftol_abs = 1e-13, maxeval = 20000)); list(r$solution, r$objective) })
  start2 <- par; start2[is.finite(lower)] <- 1
  best <- list(par, safe(par)); seen <- c()
  starts <- if (isTRUE(control$quick)) list(par) else list(par, start2)
  for (s in seq_along(starts)) for (o in if (s == 1) names(run) else "bobyqa") {
    r <- tryCatch(run[[o]](starts[[s]]), error = function(e) NULL)
    if (is.null(r)) next
    seen[paste0(o, length(seen))] <- r[[2]]
    if (r[[2]] < best[[2]]) best <- r
  }
  for (i in 1:3) { old <- best[[2]]
    for (o in "nlopt") { r <- tryCatch(run[[o]](best[[1]]), error = function(e) NULL)
      if (!is.null(r) && r[[2]] < best[[2]]) best <- r }
    if (old - best[[2]] < 1e-9) break }
  p <- best[[1]]; v <- best[[2]]
  bound <- is.finite(lower) & p - lower < 1e-3                 # a zero standard deviation?
  if (any(bound)) { q <- p; q[bound] <- lower[bound]; vq <- safe(q); if (vq <= v + 1e-9) { p <- q; v <- vq } else bound[] <- FALSE }
  free <- !bound
  f1 <- function(z) { q <- p; q[free] <- z; safe_in(q) }
  gnorm <- function(q) { g <- rep(0, k); pp <- p; p <<- q; g[free] <- grad(f1, q[free]); p <<- pp; g }
  H <- NULL; g <- rep(0, k)
  if (any(free)) {
    g <- gnorm(p)
    for (i in 1:4) {
      H <- hessian(f1, p[free])
      step <- tryCatch(solve(H, g[free]), error = function(e) NULL)
      if (is.null(step) || max(abs(step)) > 0.05) break
      q <- p; q[free] <- pmax(p[free] - step, lower[free]); vq <- safe(q); gq <- gnorm(q)
      if (vq > v + 1e-8 || max(abs(gq)) >= max(abs(g))) break
      p <- q; v <- vq; g <- gq
      if (max(abs(g)) < 1e-8) break
    }
    H <- hessian(f1, p[free])
  }
  v <- fn(p)
  assign("v", list(par = p, grad = max(abs(g)), hess = H, free = free, seen = seen, value = v), envir = .last)
  list(par = p, fval = v, feval = NA, conv = 0, convergence = 0, message = "polished")
}
assign("polish", polish, envir = globalenv())

family_of <- function(case) switch(case$family,
  binomial = binomial(case$link), poisson = poisson(case$link), gaussian = gaussian(case$link),
  Gamma = Gamma(case$link), inverse.gaussian = inverse.gaussian(case$link))
canonical <- function(case) paste(case$family, case$link) %in%
  c("binomial logit", "poisson log", "gaussian identity", "Gamma inverse")

fit_case <- function(case, d, quick = FALSE) {
  f <- as.formula(if (!is.null(case$r_formula)) case$r_formula else case$formula, env = globalenv())
  args <- list(formula = f, data = d)
  if (nzchar(case$weights)) args$weights <- d[[case$weights]]
  chk <- list(check.conv.grad = "ignore", check.conv.singular = "ignore", check.conv.hess = "ignore")
  if (case$engine == "lm") do.call(lm, args)
  else if (case$engine == "glm") do.call(glm, c(args, list(family = family_of(case),
                                  control = list(epsilon = 1e-14, maxit = 200))))
  else if (case$engine == "lmer") do.call(lme4::lmer, c(args, list(REML = case$reml,
      control = do.call(lmerControl, c(list(optimizer = "polish", optCtrl = list(quick = quick), calc.derivs = FALSE), chk)))))
  else do.call(lme4::glmer, c(args, list(family = family_of(case), nAGQ = case$nagq,
      control = do.call(glmerControl, c(list(optimizer = c("bobyqa", "polish"), tolPwrss = case$tol, calc.derivs = TRUE), chk)))))
}

CASE_DEFAULTS <- list(id = "", dataset = "", factors = character(), ordered = character(), rename = NULL, derive = NULL, formula = "",
  family = "gaussian", link = "identity", contrasts = NULL, weights = "", trials = "", offset = "", engine = "lm",
  reml = FALSE, nagq = 1, tol = 1e-13, identified = TRUE, r_formula = NULL)
model <- function(...) modifyList(CASE_DEFAULTS, list(...), keep.null = TRUE)
named <- function(x) if (length(x)) as.list(x) else setNames(list(), character())
describe <- function(case, d) {
  lv <- Filter(Negate(is.null), lapply(d[intersect(names(d), all.vars(as.formula(case$formula)))], levels))
  lv <- lv[lengths(lv) <= 100]
  list(id = case$id, dataset = case$dataset, factors = I(case$factors), ordered = I(case$ordered),
       rename = named(case$rename), derive = named(case$derive), formula = case$formula, family = case$family, link = case$link,
       contrasts = named(case$contrasts), weights = case$weights, trials = case$trials, offset = case$offset,
       engine = case$engine, reml = case$reml, nagq = case$nagq, canonical = canonical(case), identified = case$identified, levels = lapply(named(lv), I))
}

# ---- JSON -------------------------------------------------------------------------------------
clean <- function(x) {                                # infinities as "Inf"/"-Inf", missing as null
  if (inherits(x, "json_mat")) return(I(unclass(x)))
  if (is.list(x)) { a <- attributes(x); y <- lapply(x, clean); if (!is.null(a$names)) names(y) <- a$names; return(y) }
  if (is.numeric(x) && any(is.infinite(x))) {
    y <- lapply(unname(x), function(v) unbox(if (is.na(v)) NA else if (is.infinite(v)) as.character(v) else v))
    return(if (inherits(x, "AsIs") || length(x) > 1) y else y[[1]])
  }
  x
}
rows <- function(m) { m <- unname(as.matrix(m)); lapply(seq_len(nrow(m)), function(i) I(as.numeric(m[i, ]))) }
vec <- function(x) I(unname(x))
write_json <- function(x, path) {
  cases <- vapply(x$cases, function(z) as.character(toJSON(clean(z), digits = NA, auto_unbox = TRUE, na = "null", null = "null")), "")
  head <- as.character(toJSON(x$versions, auto_unbox = TRUE))
  cat('{"versions": ', head, ',\n"note": ', as.character(toJSON(unbox(x$note))), ',\n"cases": [\n', paste(cases, collapse = ",\n"), "\n]}\n", sep = "", file = path)
}
data_dir <- function() {
  a <- commandArgs(trailingOnly = TRUE)
  if (length(a) < 1) stop("usage: Rscript SCRIPT.R DATA_DIRECTORY [OUTPUT.json]")
  a
}
script_dir <- function() {
  f <- sub("^--file=", "", grep("^--file=", commandArgs(FALSE), value = TRUE))
  if (length(f)) dirname(normalizePath(f)) else "."
}
