# What each variable takes and what it refuses: a refused run holds one bad value for each variable
# it names, and each of them must be refused. (batch_size is looked at once batch_window is right.)

mock_provider "aws" {
  mock_data "aws_iam_policy_document" {
    defaults = { json = "{}" }
  }
}

variables {
  ddg_api_key = "X"
  ddg_app_key = "X"
}

run "the_least_of_everything" {
  command = plan

  variables {
    max_age_seconds     = 0
    constant_tags       = []
    name                = "abc"
    tags                = {}
    stats_prefix        = "s/"
    file_retention_days = 15
    mock_schedule       = "rate(1 day)"
    batch_size          = 1
    batch_window        = 0
    maximum_concurrency = 2
    memory_size         = 128
    log_retention_days  = 1
    alarm_email         = "a@b.c"
  }
}

run "the_most_of_everything" {
  command = plan

  variables {
    max_age_seconds     = 31536000
    constant_tags       = ["größe:l", "a${join("", [for n in range(199) : "b"])}"]
    name                = "a23456789-123456789-1234"
    tags                = { "cost centre" = "4711" }
    stats_prefix        = "a_b/c-d/1.2/"
    file_retention_days = 3650
    mock_schedule       = "cron(0/5 8-17 ? * MON-FRI *)"
    batch_size          = 10000
    batch_window        = 300
    maximum_concurrency = 1000
    memory_size         = 10240
    log_retention_days  = 3653
    alarm_email         = "first.last+tag@sub.example.com"
  }
}

run "keys_of_govcloud" {
  command = plan

  variables {
    ddg_api_key             = null
    ddg_app_key             = null
    ddg_api_key_secret_arn  = "arn:aws-us-gov:secretsmanager:us-gov-west-1:123456789012:secret:team/datadog-AbCdE1"
    ddg_api_key_kms_key_arn = "arn:aws-us-gov:kms:us-gov-west-1:123456789012:key/mrk-1234abcd12ab34cd56ef1234567890ab"
    ddg_site                = "us2.ddog-gov.com"
    aws_region              = "us-gov-west-1"
  }
}

run "site_us3_datadoghq_com" {
  command = plan

  variables {
    ddg_site = "us3.datadoghq.com"
  }
}

run "site_us5_datadoghq_com" {
  command = plan

  variables {
    ddg_site = "us5.datadoghq.com"
  }
}

run "site_datadoghq_eu" {
  command = plan

  variables {
    ddg_site = "datadoghq.eu"
  }
}

run "site_ap1_datadoghq_com" {
  command = plan

  variables {
    ddg_site = "ap1.datadoghq.com"
  }
}

run "site_ap2_datadoghq_com" {
  command = plan

  variables {
    ddg_site = "ap2.datadoghq.com"
  }
}

run "site_uk1_datadoghq_com" {
  command = plan

  variables {
    ddg_site = "uk1.datadoghq.com"
  }
}

run "site_ddog_gov_com" {
  command = plan

  variables {
    ddg_site = "ddog-gov.com"
  }
}

run "site_us9_datadoghq_com" {
  command = plan

  variables {
    ddg_site = "us9.datadoghq.com"
  }
}

run "site_one_two_ddog_gov_com" {
  command = plan

  variables {
    ddg_site = "one.two.ddog-gov.com"
  }
}

run "refused_empty" {
  command = plan

  variables {
    ddg_api_key             = ""
    ddg_app_key             = ""
    ddg_api_key_secret_arn  = ""
    ddg_api_key_kms_key_arn = ""
    ddg_site                = ""
    constant_tags           = [""]
    name                    = ""
    aws_region              = ""
    tags                    = { "" = "x" }
    stats_prefix            = ""
    mock_schedule           = ""
    alarm_email             = ""
  }

  expect_failures = [
    var.ddg_api_key,
    var.ddg_app_key,
    var.ddg_api_key_secret_arn,
    var.ddg_api_key_kms_key_arn,
    var.ddg_site,
    var.constant_tags,
    var.name,
    var.aws_region,
    var.tags,
    var.stats_prefix,
    var.mock_schedule,
    var.alarm_email,
  ]
}

run "refused_too_little" {
  command = plan

  variables {
    max_age_seconds     = -1
    name                = "ab"
    file_retention_days = 14
    batch_size          = 0
    maximum_concurrency = 1
    memory_size         = 127
    log_retention_days  = 0
  }

  expect_failures = [
    var.max_age_seconds,
    var.name,
    var.file_retention_days,
    var.batch_size,
    var.maximum_concurrency,
    var.memory_size,
    var.log_retention_days,
  ]
}

run "refused_too_much" {
  command = plan

  variables {
    constant_tags       = ["a${join("", [for n in range(200) : "b"])}"]
    name                = "a23456789-123456789-12345"
    tags                = { a = join("", [for n in range(257) : "b"]) }
    stats_prefix        = "${join("", [for n in range(256) : "s"])}/"
    batch_size          = 10001
    maximum_concurrency = 1001
    memory_size         = 10241
    log_retention_days  = 3654
  }

  expect_failures = [
    var.constant_tags,
    var.name,
    var.tags,
    var.stats_prefix,
    var.batch_size,
    var.maximum_concurrency,
    var.memory_size,
    var.log_retention_days,
  ]
}

run "refused_fractions" {
  command = plan

  variables {
    max_age_seconds     = 0.5
    file_retention_days = 15.5
    batch_size          = 1.5
    maximum_concurrency = 2.5
    memory_size         = 128.5
    log_retention_days  = 1.5
  }

  expect_failures = [
    var.max_age_seconds,
    var.file_retention_days,
    var.batch_size,
    var.maximum_concurrency,
    var.memory_size,
    var.log_retention_days,
  ]
}

run "refused_common_mistakes" {
  command = plan

  variables {
    ddg_api_key             = "a b"
    ddg_app_key             = "ab\n"
    ddg_api_key_secret_arn  = "datadog-AbCdEf"
    ddg_api_key_kms_key_arn = "arn:aws:kms:us-east-1:123456789012:alias/mine"
    ddg_site                = "https://api.datadoghq.com"
    constant_tags           = ["a,b"]
    name                    = "Stats"
    aws_region              = "Frankfurt"
    tags                    = { "aws:mine" = "x" }
    stats_prefix            = "stats"
    mock_schedule           = "rate(1 minutes)"
    alarm_email             = "oncall"
    batch_window            = 1.5
  }

  expect_failures = [
    var.ddg_api_key,
    var.ddg_app_key,
    var.ddg_api_key_secret_arn,
    var.ddg_api_key_kms_key_arn,
    var.ddg_site,
    var.constant_tags,
    var.name,
    var.aws_region,
    var.tags,
    var.stats_prefix,
    var.mock_schedule,
    var.alarm_email,
    var.batch_window,
  ]
}

run "refused_near_misses" {
  command = plan

  variables {
    ddg_api_key             = "a\tb"
    ddg_app_key             = "a\u0000b"
    ddg_api_key_secret_arn  = "arn:aws:secretsmanager:us-east-1:123456789012:secret:datadog"
    ddg_api_key_kms_key_arn = "1234abcd-12ab-34cd-56ef-1234567890ab"
    ddg_site                = "evildatadoghq.com"
    constant_tags           = ["1st"]
    name                    = "-stats"
    aws_region              = "us-east"
    stats_prefix            = "/stats/"
    mock_schedule           = "rate(5 minute)"
    alarm_email             = "a@b.c, d@e.f"
    batch_window            = 301
  }

  expect_failures = [
    var.ddg_api_key,
    var.ddg_app_key,
    var.ddg_api_key_secret_arn,
    var.ddg_api_key_kms_key_arn,
    var.ddg_site,
    var.constant_tags,
    var.name,
    var.aws_region,
    var.stats_prefix,
    var.mock_schedule,
    var.alarm_email,
    var.batch_window,
  ]
}

run "refused_dangerous" {
  command = plan

  variables {
    ddg_site      = "datadoghq.com.example.org"
    constant_tags = ["a b"]
    name          = "stats-"
    aws_region    = "us-east-1a"
    stats_prefix  = "a//b/"
    mock_schedule = "5 minutes"
    batch_window  = -1
  }

  expect_failures = [
    var.ddg_site,
    var.constant_tags,
    var.name,
    var.aws_region,
    var.stats_prefix,
    var.mock_schedule,
    var.batch_window,
  ]
}

run "refused_address_of_the_app" {
  command = plan

  variables {
    ddg_site      = "app.datadoghq.com"
    name          = "a_b"
    stats_prefix  = "*/"
    mock_schedule = "rate(0 minutes)"
  }

  expect_failures = [
    var.ddg_site,
    var.name,
    var.stats_prefix,
    var.mock_schedule,
  ]
}

run "refused_address_of_the_api" {
  command = plan

  variables {
    ddg_site      = "api.us3.datadoghq.com"
    stats_prefix  = "a b/"
    mock_schedule = "cron()"
  }

  expect_failures = [
    var.ddg_site,
    var.stats_prefix,
    var.mock_schedule,
  ]
}

run "refused_batch_without_window" {
  command = plan

  variables {
    batch_size = 11
  }

  expect_failures = [
    var.batch_size,
  ]
}
