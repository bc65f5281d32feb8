# Residuals, hat values, influence, R2, ICC, conditional AIC: Rscript quality.R DATA_DIRECTORY [quality.json]
here <- dirname(normalizePath(sub("^--file=", "", grep("^--file=", commandArgs(FALSE), value = TRUE))))
source(file.path(here, "common.R"))
suppressPackageStartupMessages({ library(performance); library(insight); library(cAIC4) })
args <- data_dir(); dir <- args[1]
out <- if (length(args) > 1) args[2] else file.path(here, "quality.json")

CASES <- list(
  model(id = "lm_mtcars", dataset = "mtcars", formula = "mpg ~ wt + hp"),
  model(id = "lm_mtcars_weights", dataset = "mtcars", formula = "mpg ~ wt", weights = "hp"),
  model(id = "glm_mtcars_log", dataset = "mtcars", engine = "glm", link = "log", formula = "mpg ~ wt + hp"),
  model(id = "glm_titanic", dataset = "titanic", engine = "glm", family = "binomial", link = "logit", factors = "pclass", formula = "survived ~ sex + pclass"),
  model(id = "glm_titanic_probit", dataset = "titanic", engine = "glm", family = "binomial", link = "probit", factors = "pclass", formula = "survived ~ sex + pclass"),
  model(id = "glm_cbpp", dataset = "cbpp", engine = "glm", family = "binomial", link = "logit", factors = "period", formula = "cbind(incidence, size - incidence) ~ period"),
  model(id = "glm_grouseticks", dataset = "grouseticks", engine = "glm", family = "poisson", link = "log", factors = "YEAR", formula = "TICKS ~ YEAR"),
  model(id = "lmer_sleepstudy", dataset = "sleepstudy", engine = "lmer", factors = "Subject", formula = "Reaction ~ Days + (Days|Subject)", reml = TRUE),
  model(id = "lmer_sleepstudy_ml_weights", dataset = "sleepstudy", engine = "lmer", factors = "Subject", derive = list(w = "Days + 1"), weights = "w", formula = "Reaction ~ Days + (1|Subject)"),
  model(id = "lmer_penicillin", dataset = "penicillin", engine = "lmer", formula = "diameter ~ 1 + (1|plate) + (1|sample)"),
  model(id = "lmer_pastes", dataset = "pastes", engine = "lmer", formula = "strength ~ 1 + (1|batch/cask)", reml = TRUE),
  model(id = "glmer_cbpp", dataset = "cbpp", engine = "glmer", family = "binomial", link = "logit", factors = c("herd", "period"), formula = "cbind(incidence, size - incidence) ~ period + (1|herd)"),
  model(id = "glmer_contra", dataset = "contra", engine = "glmer", family = "binomial", link = "logit", formula = "use ~ 1 + age + I(age^2) + urban + livch + (1|dist)"),
  model(id = "glmer_ticks_location", dataset = "grouseticks", engine = "glmer", family = "poisson", link = "log", factors = c("YEAR", "LOCATION"), formula = "TICKS ~ YEAR + (1|LOCATION)"),
  model(id = "glmer_ticks_rows", dataset = "grouseticks", engine = "glmer", family = "poisson", link = "log", factors = c("YEAR", "LOCATION", "INDEX"), formula = "TICKS ~ YEAR + (1|INDEX) + (1|LOCATION)"))

few <- function(x) list(first = vec(unname(x)[1:10]), norm = sqrt(sum(x^2)))
quiet <- function(x) suppressMessages(suppressWarnings(x))

resids <- function(m, mixed) {
  r <- lapply(c(response = "response", pearson = "pearson", deviance = "deviance", working = "working"),
              function(t) few(residuals(m, type = t)))
  r$studentised <- few(rstudent(m))
  if (!mixed) { # of lm and glm only
    r$standardised_pearson <- few(if (inherits(m, "glm")) rstandard(m, type = "pearson") else rstandard(m))
    if (inherits(m, "glm")) r$standardised_deviance <- few(rstandard(m, type = "deviance"))
  }
  r
}

# Ends of the interval in which a quantile residual lies.
quantiles <- function(m, case) {
  mu <- fitted(m); w <- weights(m, type = "prior"); if (is.null(w)) w <- rep(1, length(mu))
  y <- if (inherits(m, "merMod")) getME(m, "y") else if (inherits(m, "glm")) m$y else model.response(model.frame(m))
  ends <- switch(case$family,
    gaussian = { s <- if (inherits(m, "glm")) sqrt(summary(m)$dispersion) else sigma(m)
                 z <- (y - mu) * sqrt(w) / s; list(z, z) },
    binomial = { k <- round(y * w); list(qnorm(pbinom(k - 1, w, mu)), qnorm(pbinom(k, w, mu))) },
    poisson = list(qnorm(ppois(y - 1, mu)), qnorm(ppois(y, mu))))
  list(low = vec(ends[[1]][1:10]), high = vec(ends[[2]][1:10]))
}

# Leave one group out, each refit polished; the formulas are lme4's with the sign of dfbeta for lm.
without <- function(m, case, d, group) {
  fits <- lapply(levels(d[[group]]), function(g) {
    dd <- droplevels(d[d[[group]] != g, ]); fit_case(case, dd, quick = TRUE) })
  b <- fixef(m); V <- as.matrix(vcov(m))
  db <- t(sapply(fits, function(f) b - fixef(f)))
  se <- t(sapply(fits, function(f) sqrt(diag(as.matrix(vcov(f))))))
  sds <- t(sapply(fits, function(f) as.data.frame(VarCorr(f))$sdcor))
  list(group = group, levels = I(levels(d[[group]])), dfbeta = rows(db), dfbetas = rows(db / se),
       cooks = vec(rowSums((db %*% solve(V)) * db) / length(b)),
       covratio = vec(sapply(fits, function(f) det(as.matrix(vcov(f)))) / det(V)), components = rows(matrix(sds, length(fits))),
       cooks_lme4 = vec(quiet(cooks.distance(influence(m, groups = group, data = d)))))
}

# cAIC4 1.0 has C[j, ] with e'W_j e / (2 y'e); the derivative of the profiled deviance has no 2.
corrected_df <- function(m) {
  f <- cAIC4:::calculateGaussianBc
  text <- paste(deparse(body(f)), collapse = "\n")
  fixed <- gsub("eWje \\* e/\\(2 \\*\\s*tye\\)", "eWje * e/tye", text)
  stopifnot(fixed != text)
  body(f) <- parse(text = fixed)[[1]]
  f(cAIC4:::getModelComponents.merMod(m, TRUE), 1, TRUE)
}

shares <- function(m, case, d) {
  v <- quiet(get_variance(m))
  r <- list(fixed = v$var.fixed, random = v$var.random, dispersion = v$var.dispersion, intercepts = as.list(v$var.intercept))
  share <- function(dist) { t <- v$var.fixed + v$var.random + v$var.dispersion + dist
    I(c(v$var.fixed / t, (v$var.fixed + v$var.random) / t)) }
  if (case$family != "poisson") {
    r$r2 <- I(unname(unlist(quiet(r2_nakagawa(m)))[2:1])); i <- quiet(icc(m)); r$icc <- I(c(i$ICC_adjusted, i$ICC_unadjusted))
  } else { # performance 0.10.2 takes exp(intercept) of the null model, without half its random variance
    null <- case; null$formula <- sub("YEAR", "1", case$formula)
    m0 <- fit_case(null, d); lambda <- exp(unname(fixef(m0)) + sum(unlist(VarCorr(m0))) / 2)
    r$null_mean <- lambda
    r$trigamma <- share(trigamma(lambda)); r$lognormal <- share(log1p(1 / lambda)); r$delta <- share(1 / lambda)
  }
  r
}

CASES <- lapply(CASES, function(case) {
  message(case$id)
  d <- prepare(dir, case); m <- fit_case(case, d); mixed <- case$engine %in% c("lmer", "glmer")
  r <- c(describe(case, d), list(residuals = resids(m, mixed), quantile = quantiles(m, case),
         hat = few(quiet(hatvalues(m))), cooks = few(quiet(cooks.distance(m)))))
  if (case$engine == "glmer") # lme4's hat values have the prior weights in the place of these
    r$hat_working <- few(quiet(hatvalues(m)) * weights(m, type = "working") / weights(m, type = "prior"))
  if (mixed) r$shares <- shares(m, case, d)
  if (case$engine == "lmer") r$caic <- list(loglik = quiet(as.numeric(cAIC4:::getcondLL(m))), trace = sum(hatvalues(m)) + 1,
    df = if (nzchar(case$weights)) NULL else corrected_df(m), df_cAIC4 = if (nzchar(case$weights)) NULL else quiet(cAIC(m))$df)
  if (case$engine == "glm" && case$family != "gaussian") {
    y <- m$y; single <- !grepl("cbind", case$formula)
    r$r2 <- list(deviance = 1 - m$deviance / m$null.deviance)
    if (single) r$r2 <- c(r$r2, list(McFadden = unname(r2_mcfadden(m)$R2), CoxSnell = unname(r2_coxsnell(m)), Nagelkerke = unname(r2_nagelkerke(m))))
    if (single && case$family == "binomial") r$r2$Tjur <- unname(r2_tjur(m))
  }
  if (case$engine == "lm") { s <- summary(m); r$r2 <- list(r2 = s$r.squared, adjusted = s$adj.r.squared) }
  if (case$family == "poisson" || case$id %in% c("glm_cbpp", "glmer_cbpp")) {
    p <- sum(residuals(m, type = "pearson")^2); df <- df.residual(m)
    r$overdispersion <- list(chisq = p, df = df, ratio = p / df, p = pchisq(p, df, lower.tail = FALSE))
    if (case$family == "poisson") stopifnot(isTRUE(all.equal(check_overdispersion(m)$dispersion_ratio, p / df)))
  }
  if (case$id == "lmer_sleepstudy") r$influence <- without(m, case, d, "Subject")
  if (case$id == "glmer_cbpp") r$influence <- without(m, case, d, "herd")
  r
})
v <- versions(); for (p in c("performance", "insight", "cAIC4")) v[[p]] <- as.character(packageVersion(p))
write_json(list(versions = v, note = "see README.md", cases = CASES), out)
