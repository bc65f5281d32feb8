# lme4 and glmmTMB on one model: median seconds after a warm-up, and the log-likelihood.
# Rscript rivals.R REQUEST.json prints JSON; a package that is absent is left out,
# and `failed` says what went wrong.
# lme4 is fitted once more with tolPwrss = 1e-13: its default leaves the modes unconverged by
# enough to move the log-likelihood.
suppressPackageStartupMessages(library(jsonlite))
case <- fromJSON(commandArgs(TRUE)[1])
data <- read.csv(case$csv, stringsAsFactors = TRUE)
for (name in names(case$levels)) data[[name]] <- factor(data[[name]], levels = case$levels[[name]])
formula <- as.formula(case$formula)
linear <- case$family == "gaussian"

quiet <- function(call) suppressMessages(suppressWarnings(call()))
loglik <- function(fit) as.numeric(logLik(fit))
timed <- function(call) {
  warm <- if (case$runs > 1) loglik(quiet(call))
  seconds <- numeric(0)
  for (k in seq_len(case$runs)) seconds[k] <- system.time(fit <- quiet(call))[["elapsed"]]
  list(seconds = median(seconds), loglik = loglik(fit))
}

out <- list()
attempt <- function(name, call) tryCatch(call(), error = function(e) {
  out$failed[[name]] <<- conditionMessage(e)
  NULL
})
if (requireNamespace("lme4", quietly = TRUE)) {
  glmer <- function(tol) lme4::glmer(
    formula, data, family = case$family, nAGQ = case$nagq,
    control = lme4::glmerControl(tolPwrss = tol))
  out$lme4 <- attempt("lme4", function() timed(function() {
    if (linear) lme4::lmer(formula, data, REML = FALSE) else glmer(1e-7)
  }))
  if (!linear) out$lme4_tight <- attempt("lme4, tight", function() {
    list(loglik = loglik(quiet(function() glmer(1e-13))))
  })
}
if (case$nagq == 1 && requireNamespace("glmmTMB", quietly = TRUE))
  out$glmmTMB <- attempt("glmmTMB", function() timed(function() {
    glmmTMB::glmmTMB(formula, data, family = case$family)
  }))
cat(toJSON(out, auto_unbox = TRUE, digits = NA))
